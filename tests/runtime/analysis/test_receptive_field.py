from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from prototxt_gen import heads, proto
from prototxt_gen.spec import builtin_spec
from runtime.analysis.receptive_field import Field, receptive_fields
from runtime.backend.registry import create_backend
from runtime.net import Net
from runtime.net.shape_net import shape_net
from tests.runtime.small_nets import conv, input_layer, layer, net_param, product, shapes_of


def fields_of(net: Net) -> dict[str, Field | None]:
    return {
        str(name): field
        for made, fields in zip(net.layers, receptive_fields(net))
        for name, field in zip(made.param.top, fields)
    }


def square(size: int, stride: int | None) -> Field:
    step = None if stride is None else (Fraction(stride), Fraction(stride))
    return Field((Fraction(size), Fraction(size)), step)


def pool(name: str, bottom: str, kernel: int, stride: int = 1, method: str = "AVE") -> str:
    param = f"pooling_param {{ pool: {method} kernel_size: {kernel} stride: {stride} }}"
    return layer("Pooling", name, bottom, param)


@pytest.mark.parametrize(("stack", "size"), [(1, 3), (2, 5), (3, 7)])
def test_stacks_of_3x3_have_the_receptive_fields_of_the_paper(stack: int, size: int) -> None:
    names = ["data", *(f"c{i}" for i in range(stack))]
    layers = "".join(conv(top, bottom, 2, 3, "pad: 1") for bottom, top in itertools.pairwise(names))
    assert fields_of(shapes_of(input_layer(1, 2, 9, 9) + layers))[names[-1]] == square(size, 1)


def test_net_d_sees_what_the_recurrence_gives() -> None:
    net = shape_net(heads.dense(builtin_spec("D")), proto.TEST, create_backend("cpu"))
    found = fields_of(net)
    size, stride = 1, 1
    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(1, count + 1):
            size += 2 * stride
            assert found[f"conv{stage}_{index}"] == square(size, stride)
        size, stride = size + stride, 2 * stride
        assert found[f"pool{stage}"] == square(size, stride)
    assert found["conv5_3"] == square(196, 16)
    assert found["pool5"] == square(212, 32)
    assert found["fc6-conv"] == square(212 + 6 * 32, 32)
    assert found["prob"] == square(212 + 6 * 32, 32)


def test_the_5x5_layers_of_b_shallow_see_what_the_pairs_of_b_see() -> None:
    nets = [
        fields_of(shape_net(heads.deploy(builtin_spec(name)), proto.TEST, create_backend("cpu")))
        for name in ("B", "B-shallow")
    ]
    for stage in range(1, 6):
        assert nets[0][f"pool{stage}"] == nets[1][f"pool{stage}"]
        assert nets[0][f"conv{stage}_2"] == nets[1][f"conv{stage}_1"]


def test_an_inner_product_sees_what_the_same_convolution_sees() -> None:
    layers = conv("c", "data", 2, 5, "stride: 2") + product("p", "c", 3)
    found = fields_of(shapes_of(input_layer(1, 1, 21, 13) + layers))
    assert found["c"] == square(5, 2)
    # 9x5 places, 2 pixels apart: the whole image.
    assert found["p"] == Field((Fraction(21), Fraction(13)), None)


STACKS = {
    "stride": conv("a", "data", 1, 3, "stride: 2") + conv("last", "a", 1, 3),
    "dilation": conv("a", "data", 1, 3, "dilation: 3") + conv("last", "a", 1, 2, "dilation: 2"),
    "pooling": conv("a", "data", 1, 3) + pool("b", "a", 3, 2) + conv("last", "b", 1, 3),
    "1x1": conv("a", "data", 1, 4) + conv("last", "a", 1, 1, "stride: 3"),
    "branches": conv("a", "data", 1, 3, "pad: 1")
    + conv("b", "data", 1, 7, "pad: 3")
    + layer("Concat", "ab", "a b")
    + conv("last", "ab", 1, 3),
    "LRN within": layer(
        "LRN", "a", "data", "lrn_param { local_size: 5 norm_region: WITHIN_CHANNEL }"
    )
    + conv("last", "a", 1, 3),
}


@pytest.mark.parametrize("name", STACKS)
def test_the_field_is_the_set_of_pixels_that_matter(name: str) -> None:
    """Move one row of the image after the other and see which of the last top's rows move."""
    rows = 41
    param = net_param(input_layer(rows, 1, rows, rows) + STACKS[name])
    with Net(param, proto.TEST, create_backend("cpu", exact=True)) as net:
        field = fields_of(net)["last"]
        for made in net.layers:
            for blob in made.blobs:
                blob.data.mutable_host()[...] = 1
        image = net.blobs["data"].data.mutable_host()
        image[...] = 1
        for row in range(rows):
            image[row, 0, row, :] = 2
        net.forward()
        out = net.blobs["last"].data.host()[:, 0, :, net.blobs["last"].shape[3] // 2]
    still = np.median(out, axis=0)
    middle = out.shape[1] // 2
    seen, below = (np.flatnonzero(out[:, p] != still[p]) for p in (middle, middle + 1))
    assert field is not None and field.stride is not None
    assert field.size[0] == seen[-1] - seen[0] + 1
    assert field.stride[0] == below[0] - seen[0]


@pytest.mark.parametrize(("kernel", "meet"), [(2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_deconvolution_brings_numbers_closer_together(kernel: int, meet: int) -> None:
    """As many numbers of c as overlap meet in one of up's, 4 pixels apart, with 3 pixels each."""
    param = f"convolution_param {{ num_output: 1 kernel_size: {kernel} stride: 2 }}"
    layers = conv("c", "data", 1, 3, "stride: 4") + layer("Deconvolution", "up", "c", param)
    found = fields_of(shapes_of(input_layer(1, 1, 16, 16) + layers))
    assert found["up"] == square(3 + 4 * (meet - 1), 2)


def test_a_crop_takes_the_size_only_from_its_second_bottom() -> None:
    layers = (
        conv("narrow", "data", 1, 3)
        + conv("wide", "data", 1, 9)
        + layer("Crop", "crop", "narrow wide", "crop_param { axis: 2 offset: 1 }")
    )
    assert fields_of(shapes_of(input_layer(1, 1, 16, 16) + layers))["crop"] == square(3, 1)


def test_windows_that_are_no_squares() -> None:
    param = "convolution_param { num_output: 1 kernel_h: 5 kernel_w: 3 stride_h: 1 stride_w: 2 }"
    found = fields_of(
        shapes_of(input_layer(1, 1, 16, 16) + layer("Convolution", "c", "data", param))
    )
    assert found["c"] == Field((Fraction(5), Fraction(3)), (Fraction(1), Fraction(2)))


def test_what_has_no_field() -> None:
    layers = (
        product("scores", "data", 4)
        + layer("SoftmaxWithLoss", "loss", "scores label")
        + layer(
            "Reshape", "mixed", "data", "reshape_param { shape { dim: 2 dim: 1 dim: 36 dim: 3 } }"
        )
        + conv("behind", "mixed", 1, 3)
    )
    found = fields_of(shapes_of(input_layer(2, 3, 6, 6) + input_layer(2, name="label") + layers))
    assert found["scores"] == square(6, None)
    assert [found[name] for name in ("label", "loss", "mixed", "behind")] == [None] * 4
