"""Coordinate maps, by hand, and crops that really align."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import runtime.pycaffe as caffe
from prototxt_gen.errors import VerydeepError
from runtime.pycaffe import layers as L  # noqa: N812 -- the name in every script
from runtime.pycaffe import params as P  # noqa: N812 -- the name in every script
from runtime.pycaffe.coord_map import (
    AxisMismatchException,
    UndefinedMapException,
    compose,
    coord_map,
    coord_map_from_to,
    crop,
    inverse,
)
from tests.runtime.pycaffe.conftest import Write


def strided(kernel: Any = 3, stride: Any = 1, pad: Any = 0, up: int = 2, up_pad: int = 0) -> Any:
    """An image, convolved, pooled by 2 and enlarged again."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 40, 40]})
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=kernel, stride=stride, pad=pad)
    n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.up = L.Deconvolution(
        n.pool,
        convolution_param={"num_output": 1, "kernel_size": 2 * up, "stride": up, "pad": up_pad},
    )
    return n


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda x: L.Convolution(x, kernel_size=3, stride=2, pad=1), (1, 0.5, 0.0)),
        (lambda x: L.Convolution(x, kernel_size=3, dilation=2), (1, 1, -2)),
        (lambda x: L.Pooling(x, pooling_param={"kernel_size": 2, "stride": 2}), (1, 0.5, -0.25)),
        (lambda x: L.Deconvolution(x, kernel_size=4, stride=2, pad=1), (1, 2, 0.5)),
        (lambda x: L.Crop(x, x, axis=2, offset=5), (1, 1, -5)),
        (lambda x: L.Crop(x, x), (1, 1, 0)),
        (lambda x: L.ReLU(x), (None, 1, 0)),
    ],
)
def test_one_layer(make: Any, expected: tuple[Any, ...]) -> None:
    assert coord_map(make(L.Input()).fn) == expected


def test_maps_compose_and_invert() -> None:
    double, shift = (1, 2, 1), (None, 1, 5)
    assert compose(double, shift) == (1, 2, 11)
    assert compose(shift, double) == (1, 2, 6)
    assert compose(double, inverse(double)) == (1, 1, 0)
    with pytest.raises(AxisMismatchException, match="maps of axis 1 and of axis 2"):
        compose(double, (2, 1, 0))


def test_there_and_back() -> None:
    n = strided()
    axis, scale, shift = coord_map_from_to(n.up, n.data)
    assert (axis, scale, shift) == (1, 1, 0)
    for pad in (0, 3, 8):
        padded = strided(pad=pad)
        assert coord_map_from_to(padded.up, padded.data)[2] == -pad
        cut = strided(up_pad=pad)
        assert coord_map_from_to(cut.up, cut.data)[2] == pad
        assert coord_map_from_to(cut.data, cut.up)[2] == -pad


def test_axes_of_their_own() -> None:
    both = strided([3, 5], [1, 2], [0, 10])
    _, scale, shift = coord_map_from_to(both.up, both.data)
    for index, args in enumerate([(3, 1, 0), (5, 2, 10)]):
        single = strided(*args)
        _, one_scale, one_shift = coord_map_from_to(single.up, single.data)
        assert (scale[index], shift[index]) == (one_scale, one_shift)


@pytest.mark.parametrize("pad", [20, 21])
def test_a_crop_aligns(write: Write, pad: int) -> None:
    n = strided(kernel=1, stride=1, pad=pad, up=1)
    n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=3, stride=1, pad=1)
    n.cut = crop(n.pool, n.data)
    net = caffe.Net(write(str(n.to_proto())), caffe.TEST)
    net.params["conv"][0].data[...] = 1
    net.blobs["data"].data[0, 0, 7, 30] = 1
    result = net.forward(blobs=["cut"])["cut"]
    assert result.shape == (1, 1, 40, 40)
    rows, columns = np.nonzero(result[0, 0])
    assert (rows.mean(), columns.mean(), result.sum()) == (7, 30, 9)


def test_a_crop_of_a_crop() -> None:
    n = strided(pad=3)
    axis, scale, shift = coord_map_from_to(n.up, n.data)
    n.cut = L.Crop(n.up, n.data, crop_param={"axis": 2, "offset": [4]})
    assert coord_map_from_to(n.cut, n.data) == (axis, scale, shift + 4)
    n.sum = L.Eltwise(n.up, n.up)
    assert coord_map_from_to(n.sum, n.data) == (axis, scale, shift)
    same = crop(n.sum, n.up)
    assert same.fn.params["crop_param"] == {"axis": 2, "offset": [0]}


@pytest.mark.parametrize(
    ("tops", "error", "words"),
    [
        (lambda n: (n.pool, n.data), AssertionError, "scale mismatch on crop"),
        (
            lambda n: (n.data, L.Convolution(n.data, kernel_size=1, pad=3)),
            AssertionError,
            "cannot crop negative offset",
        ),
        (
            lambda n: (L.Convolution(n.data, kernel_size=2, pad=1), n.data),
            AssertionError,
            "cannot crop noninteger offset",
        ),
        (
            lambda n: (L.Convolution(n.data, kernel_h=3, kernel_w=1), n.data),
            AssertionError,
            "Convolution with kernel_h, kernel_w; .*does not support the legacy",
        ),
        (
            lambda n: (L.Pooling(n.data, global_pooling=True), n.data),
            AssertionError,
            "Pooling with no kernel_size",
        ),
        (
            lambda n: (L.InnerProduct(n.data, num_output=3), n.data),
            RuntimeError,
            "Could not compute map between tops; .* of a InnerProduct and a Input",
        ),
        (lambda n: (n.up, L.Input()), RuntimeError, "are they connected by spatial layers"),
    ],
)
def test_tops_that_cannot_be_aligned(tops: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        crop(*tops(strided()))
    assert isinstance(caught.value, VerydeepError)


def test_a_layer_without_a_map() -> None:
    with pytest.raises(
        UndefinedMapException, match="InnerProduct has no coordinate map; expected a"
    ):
        coord_map(L.InnerProduct(L.Input()).fn)
