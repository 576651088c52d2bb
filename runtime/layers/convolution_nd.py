"""Convolution over any number of spatial axes. Caffe: base_conv_layer.cpp, im2col.cpp (im2col_nd).

Images (N,C,H,W) are computed by the backends. Other numbers of spatial axes and other positions of
the channel axis are rare, and computed on the host by one product per kernel element.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.geometry_limits import check_count
from runtime.backend.base import HostArray

Sizes = tuple[int, ...]


def is_image(param: Any, shape: Sequence[int]) -> bool:
    """Whether a ConvolutionParameter and a bottom's shape are for images (N,C,H,W)."""
    return len(shape) == 4 and param.axis in (1, -3)


@dataclass(frozen=True)
class ConvolutionNd:
    """A convolution from `wide` to `narrow` blobs; for Deconvolution, from top to bottom.

    Shapes: wide (*outer, c, *size), narrow (*outer, k, *out); weight (k, c/group, *kernel).
    """

    outer: Sizes
    c: int
    k: int
    group: int
    size: Sizes
    out: Sizes
    kernel: Sizes
    pad: Sizes
    stride: Sizes
    dilation: Sizes

    @classmethod
    def from_param(
        cls, param: Any, shape: Sequence[int], label: str, *, transposed: bool = False
    ) -> ConvolutionNd:
        """Read a ConvolutionParameter for a bottom's shape; `transposed` for a Deconvolution.

        Raises:
            ShapeError, ProtoError: the parameters do not suit the shape.
        """
        if not -len(shape) <= param.axis < len(shape):
            raise ShapeError(
                f"{label}: axis {param.axis} is out of range; expected the channels' axis of "
                f"{tuple(shape)}"
            )
        axis = param.axis % len(shape)
        outer, channels, size = tuple(shape[:axis]), shape[axis], tuple(shape[axis + 1 :])
        kernel = _spatial(param, "kernel_size", len(size), 0, label)
        pad = _spatial(param, "pad", len(size), 0, label)
        stride = _spatial(param, "stride", len(size), 1, label)
        dilation = _spatial(param, "dilation", len(size), 1, label)
        outputs, group = int(param.num_output), int(param.group)
        if min((outputs, group, *kernel, *stride, *dilation)) < 1:
            raise ProtoError(
                f"{label}: num_output {outputs}, group {group}, kernel {kernel}, stride {stride}, "
                f"dilation {dilation}; expected at least 1 each"
            )
        if min((channels, *size)) < 1:
            raise ShapeError(
                f"{label}: the bottom has no channel or no pixel; expected at least 1 along each "
                f"axis from {axis} on, got shape {tuple(shape)}; change the input's shape"
            )
        if channels % group or outputs % group:
            raise ShapeError(
                f"{label}: group {group} does not divide {channels} input and {outputs} output "
                "channels; choose a group that divides both"
            )
        extents = [d * (n - 1) + 1 for n, d in zip(kernel, dilation)]
        if transposed:
            output = tuple(
                s * (n - 1) + r - 2 * p for n, s, r, p in zip(size, stride, extents, pad)
            )
        else:
            output = tuple(
                (n + 2 * p - r) // s + 1 for n, s, r, p in zip(size, stride, extents, pad)
            )
        if output and min(output) < 1:
            raise ShapeError(
                f"{label}: the output would be {output}; expected at least 1 along each axis, got "
                f"input {size} with kernel {kernel}, pad {pad}"
            )
        ends = (output, size) if transposed else (size, output)
        wide, narrow = (outputs, channels) if transposed else (channels, outputs)
        convolution = cls(outer, wide, narrow, group, *ends, kernel, pad, stride, dilation)
        result = convolution.wide_shape if transposed else convolution.narrow_shape
        check_count("the weights", convolution.weight_shape, label)
        check_count("the result", result, label)
        check_count("the padded input", convolution.padded_shape, label)
        return convolution

    @property
    def weight_shape(self) -> Sizes:
        return (self.k, self.c // self.group, *self.kernel)

    @property
    def wide_shape(self) -> Sizes:
        return (*self.outer, self.c, *self.size)

    @property
    def narrow_shape(self) -> Sizes:
        return (*self.outer, self.k, *self.out)

    @property
    def padded_shape(self) -> Sizes:
        """The shape of the padded input, with the outer axes joined."""
        padded = (n + 2 * p for n, p in zip(self.size, self.pad))
        return (math.prod(self.outer), self.c, *padded)

    @property
    def macs(self) -> int:
        """The multiply-adds of one pass."""
        return math.prod(self.outer) * math.prod(self.weight_shape) * math.prod(self.out)

    def forward(self, wide: HostArray, weight: HostArray) -> Any:
        """The convolution of a wide blob. Shapes: see the class."""
        padded = self._padded(wide)
        total = np.zeros((*self._grouped(self.k), math.prod(self.out)), wide.dtype)
        for element, window in self._elements():
            total += self._matrix(weight, element) @ self._part(padded, window)
        return total.reshape(self.narrow_shape)

    def backward_data(self, narrow: HostArray, weight: HostArray) -> Any:
        """The gradient of the wide blob. Shapes: see the class."""
        rows = narrow.reshape(*self._grouped(self.k), math.prod(self.out))
        padded = np.zeros(self.padded_shape, narrow.dtype)
        for element, window in self._elements():
            share = self._matrix(weight, element).swapaxes(-1, -2) @ rows
            padded[window] += share.reshape(len(padded), self.c, *self.out)
        return self._cropped(padded)

    def backward_weight(self, wide: HostArray, narrow: HostArray, gradient: Any) -> None:
        """Add the gradient of the weights to `gradient`. Shapes: see the class."""
        padded = self._padded(wide)
        rows = narrow.reshape(*self._grouped(self.k), math.prod(self.out))
        for element, window in self._elements():
            products = rows @ self._part(padded, window).swapaxes(-1, -2)
            part = gradient[(slice(None), slice(None), *element)]
            part += products.sum(axis=0).reshape(part.shape)

    @property
    def columns_shape(self) -> Sizes:
        """The shape of `columns`."""
        return (*self.outer, self.c * math.prod(self.kernel), *self.out)

    def columns(self, wide: HostArray) -> Any:
        """The elements of each window of a wide blob, as channels (c, *kernel)."""
        padded = self._padded(wide)
        columns: Any = np.empty((len(padded), self.c, *self.kernel, *self.out), wide.dtype)
        for element, window in self._elements():
            columns[(slice(None), slice(None), *element)] = padded[window]
        return columns.reshape(self.columns_shape)

    def backward_columns(self, columns: HostArray) -> Any:
        """The gradient of the wide blob from that of its columns."""
        padded = np.zeros(self.padded_shape, columns.dtype)
        parts: Any = columns.reshape(len(padded), self.c, *self.kernel, *self.out)
        for element, window in self._elements():
            padded[window] += parts[(slice(None), slice(None), *element)]
        return self._cropped(padded)

    def _cropped(self, padded: Any) -> Any:
        inside = tuple(slice(p, p + n) for p, n in zip(self.pad, self.size))
        return padded[(slice(None), slice(None), *inside)].reshape(self.wide_shape)

    def _grouped(self, channels: int) -> Sizes:
        return (math.prod(self.outer), self.group, channels // self.group)

    def _padded(self, wide: HostArray) -> Any:
        images = wide.reshape(math.prod(self.outer), self.c, *self.size)
        return np.pad(images, [(0, 0), (0, 0), *((p, p) for p in self.pad)])

    def _elements(self) -> Iterator[tuple[Sizes, tuple[slice, ...]]]:
        """The elements of the kernel, and the part of the padded blob that each multiplies."""
        for element in itertools.product(*map(range, self.kernel)):
            window = tuple(
                slice(i * d, i * d + s * (n - 1) + 1, s)
                for i, d, s, n in zip(element, self.dilation, self.stride, self.out)
            )
            yield element, (slice(None), slice(None), *window)

    def _matrix(self, weight: Any, element: Sizes) -> Any:
        part = weight[(slice(None), slice(None), *element)]
        return part.reshape(self.group, self.k // self.group, -1)

    def _part(self, padded: Any, window: tuple[slice, ...]) -> Any:
        return padded[window].reshape(*self._grouped(self.c), math.prod(self.out))


def _spatial(param: Any, name: str, axes: int, default: int, label: str) -> Sizes:
    """Read a setting that is given once for all spatial axes or once for each."""
    stem = {"kernel_size": "kernel", "dilation": ""}.get(name, name)
    values = [int(v) for v in getattr(param, name)]
    if stem and (param.HasField(f"{stem}_h") or param.HasField(f"{stem}_w")):
        if axes != 2 or values:
            raise ProtoError(
                f"{label}: {stem}_h and {stem}_w are for 2 spatial axes, without {name}; "
                f"got {axes} spatial axes; use {name} alone"
            )
        return int(getattr(param, f"{stem}_h")), int(getattr(param, f"{stem}_w"))
    if len(values) not in (0, 1, axes):
        raise ProtoError(
            f"{label}: {name} has {len(values)} values; expected one, or one for each of {axes} "
            "spatial axes"
        )
    return tuple((values or [default]) * axes if len(values) < 2 else values)
