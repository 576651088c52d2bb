"""Geometries: sizes as original Caffe computes them, readings of the parameters, and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry


def conv_param(fields: str) -> Any:
    return text.parse(fields, proto.ConvolutionParameter, where="conv")


def pool_param(fields: str) -> Any:
    return text.parse(fields, proto.PoolingParameter, where="pool")


def read_conv(fields: str, shape: tuple[int, ...] = (2, 6, 12, 10)) -> ConvGeometry:
    return ConvGeometry.from_param(conv_param(fields), shape, "layer 'c'")


def read_pool(fields: str, shape: tuple[int, ...] = (2, 6, 12, 10)) -> PoolGeometry:
    return PoolGeometry.from_param(pool_param(fields), shape, "layer 'p'")


@pytest.mark.parametrize(
    ("size", "kernel", "pad", "stride", "dilation", "out"),
    [
        (224, 3, 1, 1, 1, 224),
        (224, 7, 3, 2, 1, 112),
        (227, 11, 0, 4, 1, 55),
        (6, 3, 0, 2, 1, 2),  # 2.5 rounds down
        (7, 7, 0, 1, 1, 1),
        (9, 3, 2, 1, 2, 9),
        (5, 1, 1, 1, 1, 7),
    ],
)
def test_convolution_rounds_down(
    size: int, kernel: int, pad: int, stride: int, dilation: int, out: int
) -> None:
    geom = ConvGeometry(
        1, 1, size, size, 1, (kernel, kernel), (pad, pad), (stride, stride), (dilation, dilation)
    )
    assert (geom.p, geom.q) == (out, out)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "out"),
    [
        (224, 2, 2, 0, 112),
        (7, 2, 2, 0, 4),
        (13, 3, 2, 0, 6),
        (112, 3, 2, 1, 57),
        (3, 2, 2, 1, 2),  # 3 before the window that starts in the padding goes
        (4, 2, 2, 1, 3),
    ],
)
def test_pooling_rounds_up_and_drops_windows_of_padding(
    size: int, kernel: int, stride: int, pad: int, out: int
) -> None:
    geom = PoolGeometry(1, 1, size, size, (kernel, kernel), (stride, stride), (pad, pad))
    assert (geom.p, geom.q) == (out, out)


def test_padding_of_one_axis_drops_windows_of_both() -> None:
    geom = PoolGeometry(1, 1, 9, 9, (2, 2), (3, 3), (1, 0))
    assert (geom.p, geom.q) == (4, 3)


def test_pooling_can_round_down() -> None:
    geom = read_pool("kernel_size: 2 stride: 2 round_mode: FLOOR", (1, 1, 7, 7))
    assert (geom.p, geom.q) == (3, 3)
    assert read_pool("kernel_size: 2 stride: 2", (1, 1, 7, 7)).p == 4


def test_global_pooling_takes_the_plane() -> None:
    geom = read_pool("pool: AVE global_pooling: true")
    assert geom.kernel == (12, 10)
    assert geom.out_shape == (2, 6, 1, 1)


def test_convolution_reads_repeated_and_h_w_forms() -> None:
    wide = read_conv("num_output: 4 kernel_size: 3 kernel_size: 5 pad: 1 pad: 2 stride: 2")
    assert wide == read_conv("num_output: 4 kernel_h: 3 kernel_w: 5 pad_h: 1 pad_w: 2 stride: 2")
    assert wide.kernel == (3, 5)
    assert wide.stride == (2, 2)
    assert wide.out_shape == (2, 4, 6, 5)
    assert read_conv("num_output: 2 kernel_size: 3 dilation: 2").dilation == (2, 2)


def test_shapes_and_multiply_adds() -> None:
    geom = read_conv("num_output: 4 kernel_size: 3 pad: 1 group: 2")
    assert geom.in_shape == (2, 6, 12, 10)
    assert geom.weight_shape == (4, 3, 3, 3)
    assert geom.macs == 2 * (4 * 12 * 10) * (3 * 3 * 3)
    assert str(geom) == "2x6x12x10 -> 4x12x10 k3x3 s1 p1 g2"


def test_kinds_that_have_a_fast_way() -> None:
    assert read_conv("num_output: 4 kernel_size: 3 pad: 1").is_3x3_same
    assert not read_conv("num_output: 4 kernel_size: 3 pad: 1 stride: 2").is_3x3_same
    assert not read_conv("num_output: 4 kernel_size: 3 dilation: 2").is_3x3_same
    assert not read_conv("num_output: 4 kernel_size: 3 group: 2").is_3x3_same


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ("kernel_size: 3", ProtoError, "layer 'c': num_output is 0; expected at least 1"),
        ("num_output: 2", ProtoError, r"layer 'c': kernel is \(0, 0\); expected kernel_size"),
        ("num_output: 2 kernel_size: 3 stride: 0", ProtoError, r"stride \(0, 0\), dilation"),
        ("num_output: 2 kernel_size: 3 dilation: 0", ProtoError, r"dilation \(0, 0\); expected"),
        ("num_output: 2 kernel_size: 3 group: 4", ShapeError, "group 4 does not divide 6 input"),
        ("num_output: 3 kernel_size: 3 group: 2", ShapeError, "6 input and 3 output channels"),
        ("num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3", ProtoError, "both kernel_size"),
        ("num_output: 2 kernel_size: 13", ShapeError, "the output would be 0x-2; expected at"),
        (
            "num_output: 2 kernel_size: 3 kernel_size: 3 kernel_size: 3",
            ProtoError,
            "kernel_size has 3 values; expected one, or one for each of 2 spatial axes",
        ),
        (
            "num_output: 2 kernel_size: 3 dilation: 1 dilation: 1 dilation: 1",
            ProtoError,
            "dilation has 3 values; expected one, or one for each of 2 spatial axes",
        ),
        (
            "num_output: 4000000000 kernel_size: 1",
            ShapeError,
            r"the weights of shape \(4000000000, 6, 1, 1\) is too large; expected at most 2147483",
        ),
        (
            "num_output: 1 kernel_size: 1 pad: 30000",
            ShapeError,
            r"the result of shape \(2, 1, 60012, 60010\) is too large",
        ),
        (
            "num_output: 1 kernel_size: 1 pad: 4000000000 stride: 4000000000",
            ShapeError,
            "a window of 1 on 12 pixels with pad 4000000000 is too large; expected at most 2147483",
        ),
    ],
)
def test_impossible_convolutions(fields: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_conv(fields)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ("", ProtoError, "layer 'p': no kernel; expected kernel_size, or kernel_h and kernel_w"),
        ("kernel_size: 2 kernel_h: 2", ProtoError, "both kernel_size and kernel_h/kernel_w"),
        ("kernel_h: 2", ProtoError, "expected both kernel_h and kernel_w, got one of them"),
        ("kernel_size: 2 stride_h: 2", ProtoError, "expected both stride_h and stride_w"),
        (
            "kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1",
            ProtoError,
            "both pad and pad_h/pad_w are given",
        ),
        ("kernel_size: 2 stride: 0", ProtoError, r"stride \(0, 0\); expected at least 1 each"),
        ("kernel_size: 2 pad: 2", ProtoError, r"pad \(2, 2\); expected less than the kernel"),
        ("global_pooling: true kernel_size: 2", ProtoError, "global_pooling takes no kernel_size"),
        ("global_pooling: true stride: 2", ProtoError, "expected pad 0 and stride 1"),
        ("kernel_size: 14", ShapeError, "with kernel .14, 14.; use a smaller kernel"),
        (
            "kernel_size: 4000000000 stride: 4000000000",
            ShapeError,
            "a window of 4000000000 on 12 pixels with pad 0 is too large",
        ),
        (
            "kernel_size: 60001 pad: 60000",
            ShapeError,
            r"the result of shape \(2, 6, 60012, 60010\) is too large",
        ),
    ],
)
def test_impossible_pooling(fields: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_pool(fields)


@pytest.mark.parametrize("shape", [(2, 0, 4, 4), (2, 6, 0, 4), (2, 6, 4, 0)])
def test_images_have_channels_and_pixels(shape: tuple[int, ...]) -> None:
    words = rf"the bottom has no channel or no pixel; .* got shape \({shape[0]}, {shape[1]}"
    with pytest.raises(ShapeError, match=words):
        read_conv("num_output: 2 kernel_size: 1 pad: 1", shape)
    with pytest.raises(ShapeError, match=words):
        read_pool("kernel_size: 1 stride: 2", shape)
    with pytest.raises(ShapeError, match=words):
        LRNGeometry.from_param(proto.LRNParameter(), shape, "layer 'n'")


def test_a_batch_may_be_empty() -> None:
    assert read_conv("num_output: 2 kernel_size: 1", (0, 6, 4, 4)).out_shape == (0, 2, 4, 4)
    assert read_pool("kernel_size: 2 stride: 2", (0, 6, 4, 4)).out_shape == (0, 6, 2, 2)
    assert LRNGeometry.from_param(proto.LRNParameter(), (0, 6, 4, 4), "n").size == 5


def test_windows_of_lrn() -> None:
    with pytest.raises(ProtoError, match="layer 'n': local_size is 4; expected an odd number"):
        LRNGeometry.from_param(proto.LRNParameter(local_size=4), (1, 2, 3, 3), "layer 'n'")
    with pytest.raises(ShapeError, match=r"the padded input of shape .* is too large"):
        LRNGeometry.from_param(proto.LRNParameter(local_size=2**28 + 1), (1, 2, 3, 3), "layer 'n'")


def test_only_images_have_a_geometry() -> None:
    with pytest.raises(ShapeError, match=r"layer 'c': expected a 4-D bottom \(N,C,H,W\), got"):
        read_conv("num_output: 2 kernel_size: 1", (2, 6))
    with pytest.raises(ShapeError, match=r"layer 'p': expected a 4-D bottom \(N,C,H,W\), got"):
        read_pool("kernel_size: 1", (2, 6, 4))


@pytest.mark.parametrize(
    ("mode", "size"),
    [
        ("", 4),
        ("ceil_mode: true", 4),
        ("ceil_mode: false", 3),
        ("ceil_mode: false round_mode: FLOOR", 3),
        ("ceil_mode: true round_mode: CEIL", 4),
    ],
)
def test_ceil_mode_is_a_name_of_round_mode(mode: str, size: int) -> None:
    geom = read_pool(f"kernel_size: 2 stride: 2 {mode}", (1, 1, 7, 7))
    assert (geom.p, geom.q) == (size, size)


@pytest.mark.parametrize(
    "modes", ["ceil_mode: true round_mode: FLOOR", "ceil_mode: false round_mode: CEIL"]
)
def test_ceil_mode_may_not_contradict_round_mode(modes: str) -> None:
    with pytest.raises(ProtoError, match="round_mode and ceil_mode contradict each other"):
        read_pool(f"kernel_size: 2 {modes}", (1, 1, 7, 7))
