"""Interp: bilinear resizing that keeps the corners. Caffe: DeepLab's interp_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.geometry_limits import check_count, image_shape
from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer, between
from runtime.core.layer_registry import register

Pair = tuple[int, int]


@register("Interp")
class InterpLayer(Layer):
    """Row i of the top lies at i * (H - 1) / (P - 1) in the bottom; columns alike.

    A second bottom gives the size. Shapes: bottom (N,C,H,W); top (N,C,P,Q).
    """

    num_bottom = between(1, 2)
    in_place = False
    value_bottoms = 1

    def allow_force_backward(self, bottom_index: int) -> bool:
        """Only the first: of the second bottom, only the shape is used."""
        return bottom_index == 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the size and the weights of rows and columns.

        Raises:
            ProtoError: a pad is positive.
            ShapeError: the input or the output would have no pixels.
        """
        n, c, h, w = image_shape(bottom[0].shape, self.label)
        param = self.param.interp_param
        if param.pad_beg > 0 or param.pad_end > 0:
            raise ProtoError(
                f"{self.label}: pad_beg is {param.pad_beg} and pad_end {param.pad_end}; expected 0 "
                "or below, which cuts off rows and columns; correct interp_param"
            )
        inner = (h + param.pad_beg + param.pad_end, w + param.pad_beg + param.pad_end)
        size = self._size(inner, bottom)
        if min(*inner, *size) < 1:
            raise ShapeError(
                f"{self.label}: nothing is left to resize; expected at least 1x1, got "
                f"{inner[0]}x{inner[1]} resized to {size[0]}x{size[1]}; correct interp_param"
            )
        check_count("the result", (n, c, *size), self.label)
        first = -int(param.pad_beg)
        self.part = (slice(None), slice(None), *(slice(first, first + s) for s in inner))
        dtype = bottom[0].data.host().dtype
        self.rows = _weights(inner[0], size[0]).astype(dtype)
        self.columns = _weights(inner[1], size[1]).astype(dtype)
        top[0].reshape((n, c, *size))

    def _size(self, inner: Pair, bottom: Blobs) -> Pair:
        param = self.param.interp_param
        given = [
            name
            for name in ("height", "width", "shrink_factor", "zoom_factor")
            if param.HasField(name)
        ]
        if len(bottom) == 2:
            if given:
                raise ProtoError(
                    f"{self.label}: the size is given twice; expected a second bottom alone, got "
                    f"{given[0]} as well; remove one of them"
                )
            return image_shape(bottom[1].shape, self.label)[2:]
        if given == ["height", "width"]:
            return int(param.height), int(param.width)
        if not given or "height" in given or "width" in given:
            raise ProtoError(
                f"{self.label}: the size is not given; expected height and width, or shrink_factor "
                f"or zoom_factor, got {' and '.join(given) or 'none'}; correct interp_param"
            )
        shrink, zoom = int(param.shrink_factor), int(param.zoom_factor)
        if min(shrink, zoom) < 1:
            raise ProtoError(
                f"{self.label}: shrink_factor is {shrink} and zoom_factor {zoom}; expected at "
                "least 1; correct interp_param"
            )
        height, width = (((size - 1) // shrink) * zoom + 1 for size in inner)
        return height, width

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Weigh rows, then columns."""
        x = bottom[0].data.host()[self.part]
        top[0].data.mutable_host()[...] = self.rows @ x @ self.columns.T

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Apply the transposed weights."""
        if propagate_down[0]:
            dx = bottom[0].diff.mutable_host()
            dx[...] = 0
            dx[self.part] = self.rows.T @ top[0].diff.host() @ self.columns

    def to_onnx(self, step: OnnxStep) -> list[str]:
        value = step.inputs[0]
        if step.bottom[0].shape[2:] != (self.rows.shape[1], self.columns.shape[1]):
            starts = [self.part[2].start, self.part[3].start]
            stops = [self.part[2].stop, self.part[3].stop]
            bounds = [
                step.constant(np.array(values, np.int64), name)
                for values, name in ((starts, "starts"), (stops, "stops"), ([2, 3], "axes"))
            ]
            value = step.op("Slice", value, *bounds)
        sizes = step.constant(np.array(step.top[0].shape, np.int64), "sizes")
        return [
            step.op(
                "Resize",
                value,
                "",
                "",
                sizes,
                mode="linear",
                coordinate_transformation_mode="align_corners",
            )
        ]


def _weights(size: int, resized: int) -> HostArray:
    """The matrix (resized, size) that interpolates between neighbours."""
    step = (size - 1) / (resized - 1) if resized > 1 else 0.0
    place = np.arange(resized) * step
    low = np.minimum(place.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    share = place - low
    weights = np.zeros((resized, size))
    row = np.arange(resized)
    np.add.at(weights, (row, low), 1 - share)
    np.add.at(weights, (row, high), share)
    return weights
