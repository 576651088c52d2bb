"""Convolutions over other blobs than images: by their definition, by differences, by images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ProtoError, ShapeError, VerydeepError
from runtime.analysis.summary import summarize
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.layers.convolution import ConvolutionLayer
from runtime.net import Net
from tests.oracle.gradcheck import check_gradient

FILLERS = 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'


def build(kind: str, param: str, shape: Sequence[int], bottoms: int = 1) -> Net:
    """A net of one layer in float64, its inputs filled."""
    dims = " ".join(f"dim: {d}" for d in shape)
    lines = ["force_backward: true"]
    for i in range(bottoms):
        lines.append(
            f'layer {{ name: "in{i}" type: "Input" top: "b{i}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    wires = "".join(f' bottom: "b{i}" top: "t{i}"' for i in range(bottoms))
    lines.append(
        f'layer {{ name: "x" type: "{kind}"{wires} convolution_param {{ {param} {FILLERS} }} }}'
    )
    message = text.parse("\n".join(lines), proto.NetParameter, "case")
    context = RunContext(seed=3, rng=CaffeRandom(3))
    net = Net(message, proto.TRAIN, create_backend("cpu", dtype=np.float64), context)
    rng = np.random.default_rng(5)
    for i in range(bottoms):
        net.blobs[f"b{i}"].data.mutable_host()[...] = rng.uniform(-1, 1, shape)
    return net


def conv_layer(net: Net) -> ConvolutionLayer:
    layer = net.layer_by_name("x")
    assert isinstance(layer, ConvolutionLayer)
    return layer


def convolved(x: Any, w: Any, b: Any, stride: Any, pad: Any, dilation: Any, group: int) -> Any:
    """The definition: every output number by itself."""
    spatial = x.ndim - 2
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:])]
    out = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, stride)]
    y = np.zeros((len(x), len(w), *out))
    per_in, per_out = w.shape[1], len(w) // group
    for n, k in np.ndindex(len(x), len(w)):
        first = k // per_out * per_in
        for at in np.ndindex(*out):
            window = tuple(
                slice(at[i] * stride[i], at[i] * stride[i] + reach[i], dilation[i])
                for i in range(spatial)
            )
            y[(n, k, *at)] = (
                padded[n, first : first + per_in][(slice(None), *window)] * w[k]
            ).sum()
    return y + b.reshape((1, -1) + (1,) * spatial)


CASES = [
    ("kernel_size: 3 stride: 2 pad: 1", (2, 4, 9), [2], [1], [1], 1),
    ("kernel_size: 2 dilation: 3 group: 2", (2, 4, 9), [1], [0], [3], 2),
    (
        "kernel_size: 3 kernel_size: 2 kernel_size: 1 stride: 2 stride: 1 stride: 1 "
        "pad: 1 pad: 0 pad: 1 group: 2",
        (1, 4, 3, 2, 3),
        [2, 1, 1],
        [1, 0, 1],
        [1, 1, 1],
        2,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=["sequence", "dilated", "volume"])
def test_forward_is_the_definition(case: Any) -> None:
    param, shape, stride, pad, dilation, group = case
    with build("Convolution", f"num_output: 6 {param}", shape) as net:
        net.forward()
        w, b = (blob.data.host() for blob in conv_layer(net).blobs)
        x = net.blobs["b0"].data.host()
        wanted = convolved(x, w, b, stride, pad, dilation, group)
        np.testing.assert_allclose(net.blobs["t0"].data.host(), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("case", CASES, ids=["sequence", "dilated", "volume"])
def test_gradients_are_slopes(kind: str, case: Any) -> None:
    param, shape = case[:2]
    with build(kind, f"num_output: 6 {param}", shape, bottoms=2) as net:
        net.forward()
        tops = [net.blobs["t0"], net.blobs["t1"]]
        rng = np.random.default_rng(8)
        seeds = [rng.uniform(-1, 1, blob.shape) for blob in tops]

        def objective() -> float:
            net.forward()
            return float(sum((s * blob.data.host()).sum() for s, blob in zip(seeds, tops)))

        for seed, blob in zip(seeds, tops):
            blob.diff.mutable_host()[...] = seed
        net.clear_param_diffs()
        net.backward()
        checked = [net.blobs["b0"], net.blobs["b1"], *conv_layer(net).blobs]
        slopes = [blob.diff.host().copy() for blob in checked]
        for blob, slope in zip(checked, slopes):
            check_gradient(blob.name, objective, blob.data.mutable_host(), slope, step=1e-5)


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_a_sequence_is_an_image_of_height_1(kind: str) -> None:
    flat = "num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2"
    tall = (
        "num_output: 6 kernel_h: 1 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 0 pad_w: 1 group: 2"
    )
    with build(kind, flat, (2, 4, 9)) as one, build(kind, tall, (2, 4, 1, 9)) as two:
        for net in (one, two):
            net.forward()
            top = net.blobs["t0"]
            values = np.arange(top.count(), dtype=np.float64).reshape(top.shape)
            top.diff.mutable_host()[...] = values
            net.backward()
        pairs = [
            (one.blobs["t0"].data, two.blobs["t0"].data),
            (one.blobs["b0"].diff, two.blobs["b0"].diff),
            *((a.diff, b.diff) for a, b in zip(conv_layer(one).blobs, conv_layer(two).blobs)),
        ]
        for a, b in pairs:
            np.testing.assert_allclose(a.host().ravel(), b.host().ravel(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("axis", [2, -3])
def test_axes_before_the_channels_are_samples(axis: int) -> None:
    param = "num_output: 6 kernel_size: 3"
    with (
        build("Convolution", f"axis: {axis} {param}", (2, 3, 4, 5, 6)) as one,
        build("Convolution", param, (6, 4, 5, 6)) as two,
    ):
        one.forward()
        two.forward()
        found = one.blobs["t0"].data.host()
        assert found.shape == (2, 3, 6, 3, 4)
        wanted = two.blobs["t0"].data.host()
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-10, atol=1e-12)


def test_without_spatial_axes_it_is_a_product() -> None:
    with build("Convolution", "num_output: 6 kernel_size: 1", (5, 4)) as net:
        net.forward()
        w, b = (blob.data.host() for blob in conv_layer(net).blobs)
        assert w.shape == (6, 4)
        wanted = net.blobs["b0"].data.host() @ w.T + b
        np.testing.assert_allclose(net.blobs["t0"].data.host(), wanted, rtol=1e-12)


def test_a_longer_sequence_is_taken_and_other_channels_are_not() -> None:
    with build("Convolution", "num_output: 6 kernel_size: 3", (2, 4, 9)) as net:
        net.blobs["b0"].reshape((1, 4, 20))
        net.forward()
        assert net.blobs["t0"].shape == (1, 6, 18)
        net.blobs["b0"].reshape((1, 5, 20))
        with pytest.raises(ShapeError, match=r"requires weights .*as when the net was built"):
            net.forward()


def test_multiply_adds_are_counted() -> None:
    with build("Convolution", "num_output: 6 kernel_size: 3 group: 2", (2, 4, 9)) as net:
        assert conv_layer(net).macs == 2 * 7 * 6 * 2 * 3
        row = next(row for row in summarize(net).rows if row.name == "x")
        assert row.multiply_adds == 7 * 6 * 2 * 3


REFUSED: list[tuple[str, tuple[int, ...], type[VerydeepError], str]] = [
    ("kernel_size: 3 kernel_size: 3", (2, 4, 5, 6, 7), ProtoError, "kernel_size has 2 values"),
    ("kernel_h: 3 kernel_w: 3", (2, 4, 9), ProtoError, "are for 2 spatial axes"),
    ("kernel_size: 10", (2, 4, 9), ShapeError, "the output would be"),
    ("pad: 1", (2, 4, 9), ProtoError, "expected at least 1 each"),
    ("kernel_size: 3 group: 3", (2, 4, 9), ShapeError, "group 3 does not divide"),
    ("axis: 3 kernel_size: 1", (2, 4, 9), ShapeError, "axis 3 is out of range"),
]


@pytest.mark.parametrize(("param", "shape", "error", "words"), REFUSED)
def test_what_does_not_fit(
    param: str, shape: tuple[int, ...], error: type[VerydeepError], words: str
) -> None:
    with pytest.raises(error, match=words):
        build("Convolution", f"num_output: 6 {param}", shape)
