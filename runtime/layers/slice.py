"""Slice: the parts of a blob along an axis. Caffe: slice_layer.cpp."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register


@register("Slice")
class SliceLayer(Layer):
    """Divides the bottom at slice_point, or into equal parts, one per top."""

    places = Places.SHIFTED
    only_ops = True

    num_top = at_least(1)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the axis is given once.

        Raises:
            ProtoError: axis and slice_dim are both given.
        """
        param = self.param.slice_param
        if param.HasField("axis") and param.HasField("slice_dim"):
            raise ProtoError(f"{self.label}: axis and slice_dim are both given; expected one")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Determine the parts and shape the tops.

        Raises:
            ProtoError: slice_point does not suit the tops and the axis.
            ShapeError: the axis cannot be divided equally.
        """
        param = self.param.slice_param
        index = int(param.slice_dim) if param.HasField("slice_dim") else int(param.axis)
        self.axis = axis = bottom[0].canonical_axis(index, self.label)
        size = bottom[0].shape[axis]
        points = [int(p) for p in param.slice_point]
        if points:
            bounds = [0, *points, size]
            if len(points) != len(top) - 1 or any(a >= b for a, b in itertools.pairwise(bounds)):
                raise ProtoError(
                    f"{self.label}: slice_point {points} cannot divide {size} for {len(top)} tops; "
                    f"expected {len(top) - 1} ascending numbers between 0 and {size}"
                )
        else:
            if size % len(top):
                raise ShapeError(
                    f"{self.label}: {size} along axis {axis} is not a multiple of {len(top)} tops; "
                    "expected equal parts, or give slice_point"
                )
            part = size // len(top)
            bounds = [part * i for i in range(len(top) + 1)]
        shape = bottom[0].shape
        for blob, (a, b) in zip(top, itertools.pairwise(bounds)):
            blob.reshape((*shape[:axis], b - a, *shape[axis + 1 :]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy each part."""
        rows, width = bottom[0].count(0, self.axis), bottom[0].count(self.axis)
        x, offset = bottom[0].data.dev(), 0
        for blob in top:
            cols = blob.count(self.axis)
            y = blob.data.mutable_dev()
            self.backend.memory.copy_2d(x, y, rows, cols, (offset, width), (0, cols))
            offset += cols

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Concatenate the gradients of the parts."""
        if not propagate_down[0]:
            return
        rows, width = bottom[0].count(0, self.axis), bottom[0].count(self.axis)
        dx, offset = bottom[0].diff.mutable_dev(), 0
        for blob in top:
            cols = blob.count(self.axis)
            self.backend.memory.copy_2d(blob.diff.dev(), dx, rows, cols, (0, cols), (offset, width))
            offset += cols

    def to_onnx(self, step: OnnxStep) -> list[str]:
        sizes = np.array([blob.shape[self.axis] for blob in step.top], np.int64)
        values = (step.inputs[0], step.constant(sizes, "sizes"))
        return step.ops("Split", *values, outputs=len(step.top), axis=self.axis)
