"""ROIPooling: the maxima of the parts of regions. Caffe: Fast R-CNN's roi_pooling_layer.cpp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.geometry_limits import check_count, image_shape
from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register

Part = tuple[slice, slice]


@register("ROIPooling")
class ROIPoolingLayer(Layer):
    """The maxima of pooled_h by pooled_w parts of each region of a map, 0 for an empty part.

    Shapes: bottom (N,C,H,W); regions (R,5) or (R,5,1,1): number of the item, x1, y1, x2, y2; top
    (R,C,pooled_h,pooled_w).

    Units: coordinates times spatial_scale are columns and rows of the bottom.
    """

    num_bottom = exactly(2)
    in_place = False

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True except for the regions."""
        return bottom_index == 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check the shapes of the regions and shape the top.

        Raises:
            ProtoError, ShapeError: the parameters or the shapes are out of range.
        """
        channels = image_shape(bottom[0].shape, self.label)[1]
        param = self.param.roi_pooling_param
        self.pooled = (int(param.pooled_h), int(param.pooled_w))
        if min(self.pooled) < 1 or not param.spatial_scale > 0:
            raise ProtoError(
                f"{self.label}: pooled_h and pooled_w are {self.pooled} and spatial_scale "
                f"{param.spatial_scale:g}; expected at least 1 and above 0; correct "
                "roi_pooling_param"
            )
        if bottom[1].num_axes < 2 or bottom[1].count(1) != 5:
            raise ShapeError(
                f"{self.label}: the regions do not fit; expected shape (R,5), got "
                f"{bottom[1].shape}; give the item's number and 4 coordinates for each"
            )
        self.count = bottom[0].shape[0]
        shape = (bottom[1].shape[0], channels, *self.pooled)
        check_count("the result", shape, self.label)
        top[0].reshape(shape)
        self.maxima = np.zeros(shape, np.int64)
        """Where each maximum is in the plane; -1 for an empty part."""

    def _items(self, bottom: Blobs) -> HostArray:
        """The items' numbers."""
        items = bottom[1].data.host().reshape(-1, 5)[:, 0]
        if items.size and not (items.min() >= 0 and items.max() < bottom[0].shape[0]):
            raise ShapeError(
                f"{self.label}: a region is of an item that is not there; expected 0 to "
                f"{bottom[0].shape[0] - 1}, got {items.min():g} to {items.max():g}; correct the "
                "first column of the regions"
            )
        if not np.isfinite(bottom[1].data.host()).all():
            raise ShapeError(f"{self.label}: a region has a coordinate that is not finite")
        return items.astype(np.int64)

    def _parts(self, region: HostArray, plane: tuple[int, int]) -> Iterator[tuple[int, int, Part]]:
        """The rows and columns of each part, cut off at the plane's edges."""
        scaled = region * region.dtype.type(self.param.roi_pooling_param.spatial_scale)
        x1, y1, x2, y2 = np.trunc(scaled + np.copysign(region.dtype.type(0.5), scaled))
        bounds = [
            _bounds(start, stop, parts, size)
            for start, stop, parts, size in zip((y1, x1), (y2, x2), self.pooled, plane)
        ]
        for i, rows in enumerate(bounds[0]):
            for j, columns in enumerate(bounds[1]):
                yield i, j, (rows, columns)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Take the maxima and note their places."""
        x, y = bottom[0].data.host(), top[0].data.mutable_host()
        width = x.shape[3]
        regions = bottom[1].data.host().reshape(-1, 5)[:, 1:]
        channels = np.arange(x.shape[1])
        for r, (item, region) in enumerate(zip(self._items(bottom), regions)):
            for i, j, (rows, columns) in self._parts(region, x.shape[2:]):
                part = x[item][:, rows, columns]
                flat = part.reshape(part.shape[0], part.shape[1] * part.shape[2])
                if not flat.shape[1]:
                    y[r, :, i, j], self.maxima[r, :, i, j] = 0, -1
                    continue
                best = flat.argmax(axis=1)
                y[r, :, i, j] = flat[channels, best]
                row, column = np.divmod(best, part.shape[2])
                self.maxima[r, :, i, j] = (rows.start + row) * width + columns.start + column

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Add the gradients at the maxima."""
        if not propagate_down[0]:
            return
        n, c, h, w = bottom[0].shape
        dx = bottom[0].diff.mutable_host()
        dx[...] = 0
        item = self._items(bottom).reshape(-1, 1, 1, 1)
        plane = np.broadcast_to(item * c + np.arange(c).reshape(1, -1, 1, 1), self.maxima.shape)
        full = self.maxima >= 0
        np.add.at(
            dx.reshape(n * c, h * w), (plane[full], self.maxima[full]), top[0].diff.host()[full]
        )

    @property
    def index_limit(self) -> int:
        """The items' numbers are below the size of the batch."""
        return self.count

    def to_onnx(self, step: OnnxStep) -> list[str]:
        regions = step.reshape(step.inputs[1], (-1, 5))
        scale = float(self.param.roi_pooling_param.spatial_scale)
        return [
            step.op(
                "MaxRoiPool",
                step.inputs[0],
                regions,
                pooled_shape=list(self.pooled),
                spatial_scale=scale,
            )
        ]


def _bounds(start: float, stop: float, parts: int, size: int) -> list[slice]:
    """The slices of a region's parts along an axis; a region is at least 1 long.

    Caffe computes in the precision of the blobs: the rounding decides about the last number.
    """
    number = np.asarray(start).dtype.type
    length = max(number(stop - start + 1), number(1))
    edges = np.arange(parts + 1, dtype=number) * (length / number(parts))
    first = np.clip(np.floor(edges[:-1]) + start, 0, size).astype(np.int64)
    last = np.clip(np.ceil(edges[1:]) + start, 0, size).astype(np.int64)
    return [slice(int(a), int(b)) for a, b in zip(first, np.maximum(first, last))]
