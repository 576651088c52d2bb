"""Geometries of layers: the sizes that ops use, and the inference of output shapes.

Shape inference, ops, summaries and counts of multiply-adds use the same immutable values.
Dimension letters: N images, C input channels, H x W input, K output channels, R x S kernel,
P x Q output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.geometry_limits import check_count, check_extent, image_shape
from prototxt_gen.integers import ceil_div

Pair = tuple[int, int]


def _pair(param: Any, name: str, default: int, where: str) -> Pair:
    """Read a spatial setting of ConvolutionParameter: `x_h`/`x_w`, or repeated `x` of 1 or 2."""
    stem = {"kernel_size": "kernel", "dilation": ""}.get(name, name)
    if stem and (param.HasField(f"{stem}_h") or param.HasField(f"{stem}_w")):
        if len(getattr(param, name)):
            raise ProtoError(
                f"{where}: both {name} and {stem}_h/{stem}_w are given; "
                "expected one form; remove the other"
            )
        return int(getattr(param, f"{stem}_h")), int(getattr(param, f"{stem}_w"))
    values = [int(v) for v in getattr(param, name)]
    if not values:
        return default, default
    if len(values) == 1:
        return values[0], values[0]
    if len(values) == 2:
        return values[0], values[1]
    raise ProtoError(
        f"{where}: {name} has {len(values)} values; expected one, or one for each of 2 spatial axes"
    )


@dataclass(frozen=True)
class ConvGeometry:
    """A 2-D convolution over NCHW blobs.

    Shapes: x (N,C,H,W); weight (K,C/group,R,S); bias (K,); y (N,K,P,Q).
    Caffe: base_conv_layer.cpp, conv_layer.cpp (the output size is rounded down).
    """

    n: int
    c: int
    h: int
    w: int
    k: int
    kernel: Pair
    pad: Pair = (0, 0)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    group: int = 1
    p: int = field(init=False)
    q: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", self._out(self.h, 0))
        object.__setattr__(self, "q", self._out(self.w, 1))

    def _out(self, size: int, axis: int) -> int:
        extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + 2 * self.pad[axis] - extent) // self.stride[axis] + 1

    @classmethod
    def from_param(cls, param: Any, shape: Sequence[int], where: str) -> ConvGeometry:
        """Read a ConvolutionParameter against a bottom's shape.

        Raises:
            ShapeError: the bottom is not 4-D or has no pixel, the kernel does not fit into it, or
                the result is too large.
            ProtoError: num_output, kernel, stride or group are out of range.
        """
        geom = cls.deconv_input(param, shape, where)
        if geom.p < 1 or geom.q < 1:
            raise ShapeError(
                f"{where}: the output would be {geom.p}x{geom.q}; expected at least 1x1, got input "
                f"{geom.h}x{geom.w} with kernel {geom.kernel}, pad {geom.pad}; enlarge the input "
                "or the pad"
            )
        geom.check(where)
        return geom

    def check(self, where: str) -> None:
        """Check that blobs and indices can have these sizes.

        Raises:
            ShapeError: the weights, the output or a padded axis are too large.
        """
        extent = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation)]
        check_extent((self.h, self.w), self.pad, extent, where)
        check_count("the weights", self.weight_shape, where)
        check_count("the result", self.out_shape, where)
        check_count("the input", self.in_shape, where)

    @classmethod
    def deconv_input(cls, param: Any, shape: Sequence[int], where: str) -> ConvGeometry:
        """Read the parameter of a Deconvolution, whose kernel may be larger than the input.

        Raises:
            ShapeError: the bottom is not 4-D or has no pixel, or the group does not divide the
                channels.
            ProtoError: num_output, kernel, stride or dilation are out of range.
        """
        n, c, h, w = image_shape(shape, where)
        kernel = _pair(param, "kernel_size", 0, where)
        stride = _pair(param, "stride", 1, where)
        pad = _pair(param, "pad", 0, where)
        dilation = _pair(param, "dilation", 1, where)
        k, group = int(param.num_output), int(param.group)
        if k < 1:
            raise ProtoError(f"{where}: num_output is {k}; expected at least 1")
        if min(kernel) < 1:
            raise ProtoError(f"{where}: kernel is {kernel}; expected kernel_size of at least 1")
        if min(stride) < 1 or min(dilation) < 1:
            raise ProtoError(
                f"{where}: stride {stride}, dilation {dilation}; expected at least 1 each"
            )
        if group < 1 or c % group or k % group:
            raise ShapeError(
                f"{where}: group {group} does not divide {c} input and {k} output channels; "
                "choose a group that divides both"
            )
        return cls(n, c, h, w, k, kernel, pad, stride, dilation, group)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.k, self.c // self.group, *self.kernel)

    @property
    def in_shape(self) -> tuple[int, int, int, int]:
        return (self.n, self.c, self.h, self.w)

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return (self.n, self.k, self.p, self.q)

    @property
    def macs(self) -> int:
        """The multiply-adds of the direct algorithm for all images of the batch in one pass."""
        r, s = self.kernel
        return self.n * self.k * self.p * self.q * (self.c // self.group) * r * s

    @property
    def is_3x3_same(self) -> bool:
        """Whether Winograd's algorithm applies: 3x3, stride 1, undilated, ungrouped."""
        return (
            self.kernel == (3, 3)
            and self.stride == (1, 1)
            and self.dilation == (1, 1)
            and self.group == 1
        )

    def __str__(self) -> str:
        """The geometry as benchmarks and plans print it."""
        text = (
            f"{self.n}x{self.c}x{self.h}x{self.w} -> {self.k}x{self.p}x{self.q} "
            f"k{self.kernel[0]}x{self.kernel[1]} s{self.stride[0]} p{self.pad[0]}"
        )
        text += f" d{self.dilation[0]}" if self.dilation != (1, 1) else ""
        return text + (f" g{self.group}" if self.group > 1 else "")


@dataclass(frozen=True)
class PoolGeometry:
    """Pooling over NCHW planes.

    Shapes: x (N,C,H,W); y (N,C,P,Q).
    Caffe: pooling_layer.cpp. The output is rounded up unless round_mode is FLOOR; with padding
    along either axis, a last window that would start beyond the padded input is dropped on both.
    """

    n: int
    c: int
    h: int
    w: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    ceil: bool = True
    p: int = field(init=False)
    q: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", self._out(self.h, 0))
        object.__setattr__(self, "q", self._out(self.w, 1))

    def _out(self, size: int, axis: int) -> int:
        span = size + 2 * self.pad[axis] - self.kernel[axis]
        stride = self.stride[axis]
        out = (ceil_div(span, stride) if self.ceil else span // stride) + 1
        if any(self.pad) and (out - 1) * stride >= size + self.pad[axis]:
            out -= 1
        return out

    @classmethod
    def from_param(cls, param: Any, shape: Sequence[int], where: str) -> PoolGeometry:
        """Read a PoolingParameter against a bottom's shape.

        Raises:
            ShapeError: the bottom is not 4-D or has no pixel, or the window does not fit into it.
            ProtoError: kernel, stride or pad are missing, given twice or out of range.
        """
        n, c, h, w = image_shape(shape, where)
        kernel = _pool_kernel(param, (h, w), where)
        stride = _single_or_hw(param, "stride", where)
        pad = _single_or_hw(param, "pad", where)
        if param.global_pooling and (pad != (0, 0) or stride != (1, 1)):
            raise ProtoError(
                f"{where}: with global_pooling, expected pad 0 and stride 1, "
                f"got pad {pad} and stride {stride}; remove them"
            )
        if min(kernel) < 1 or min(stride) < 1:
            raise ProtoError(f"{where}: kernel {kernel}, stride {stride}; expected at least 1 each")
        if pad[0] >= kernel[0] or pad[1] >= kernel[1]:
            raise ProtoError(f"{where}: pad {pad}; expected less than the kernel {kernel}")
        geom = cls(n, c, h, w, kernel, stride, pad, _rounds_up(param, where))
        if geom.p < 1 or geom.q < 1:
            raise ShapeError(
                f"{where}: the output would be {geom.p}x{geom.q}; expected at least 1x1, got input "
                f"{h}x{w} with kernel {kernel}; use a smaller kernel"
            )
        check_extent((h, w), pad, kernel, where)
        check_count("the result", geom.out_shape, where)
        return geom

    @property
    def in_shape(self) -> tuple[int, int, int, int]:
        return (self.n, self.c, self.h, self.w)

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return (self.n, self.c, self.p, self.q)


def _rounds_up(param: Any, where: str) -> bool:
    """Whether output sizes are rounded up, by round_mode or by the ceil_mode of other builds."""
    by_mode = param.round_mode == param.DESCRIPTOR.fields_by_name["round_mode"].default_value
    if not param.HasField("ceil_mode"):
        return bool(by_mode)
    if param.HasField("round_mode") and param.ceil_mode != by_mode:
        raise ProtoError(
            f"{where}: round_mode and ceil_mode contradict each other; expected one of them; "
            "remove the other"
        )
    return bool(param.ceil_mode)


def _single_or_hw(param: Any, name: str, where: str) -> Pair:
    if param.HasField(f"{name}_h") or param.HasField(f"{name}_w"):
        if param.HasField(name):
            raise ProtoError(
                f"{where}: both {name} and {name}_h/{name}_w are given; expected one form"
            )
        if not (param.HasField(f"{name}_h") and param.HasField(f"{name}_w")):
            raise ProtoError(f"{where}: expected both {name}_h and {name}_w, got one of them")
        return int(getattr(param, f"{name}_h")), int(getattr(param, f"{name}_w"))
    return int(getattr(param, name)), int(getattr(param, name))


def _pool_kernel(param: Any, plane: Pair, where: str) -> Pair:
    names = [f for f in ("kernel_size", "kernel_h", "kernel_w") if param.HasField(f)]
    if param.global_pooling:
        if names:
            raise ProtoError(f"{where}: global_pooling takes no {names[0]}; remove it")
        return plane
    if not names:
        raise ProtoError(f"{where}: no kernel; expected kernel_size, or kernel_h and kernel_w")
    return _single_or_hw_kernel(param, where)


def _single_or_hw_kernel(param: Any, where: str) -> Pair:
    if param.HasField("kernel_size"):
        if param.HasField("kernel_h") or param.HasField("kernel_w"):
            raise ProtoError(f"{where}: both kernel_size and kernel_h/kernel_w; expected one form")
        return int(param.kernel_size), int(param.kernel_size)
    if not (param.HasField("kernel_h") and param.HasField("kernel_w")):
        raise ProtoError(f"{where}: expected both kernel_h and kernel_w, got one of them")
    return int(param.kernel_h), int(param.kernel_w)


@dataclass(frozen=True)
class LRNGeometry:
    """Local response normalisation across channels.

    Shapes: x, scale, y (N,C,H,W). y = x * scale^-beta,
    scale = k + alpha / size * (sum of x^2 over `size` channels).
    Caffe: lrn_layer.cpp. Paper: 2.1 (net A-LRN).
    """

    n: int
    c: int
    h: int
    w: int
    size: int = 5
    alpha: float = 1.0
    beta: float = 0.75
    k: float = 1.0

    @classmethod
    def from_param(cls, param: Any, shape: Sequence[int], where: str) -> LRNGeometry:
        """Read an LRNParameter against a bottom's shape.

        Raises:
            ShapeError: the bottom is not 4-D or has no pixel, or the window is larger than Caffe's
                padded blob may be.
            ProtoError: local_size is even.
        """
        size = int(param.local_size)
        if size % 2 == 0:
            raise ProtoError(
                f"{where}: local_size is {size}; expected an odd number; change lrn_param"
            )
        n, c, h, w = image_shape(shape, where)
        check_count("the padded input", (c + size - 1, h, w), where)
        return cls(n, c, h, w, size, float(param.alpha), float(param.beta), float(param.k))
