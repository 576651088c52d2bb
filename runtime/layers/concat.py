"""Concat. Caffe: concat_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register


@register("Concat")
class ConcatLayer(Layer):
    """Concatenates the bottoms along an axis; their other axes agree."""

    applies_densely = True
    places = Places.SHIFTED
    only_ops = True

    num_bottom = at_least(1)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the axis is given once.

        Raises:
            ProtoError: axis and concat_dim are both given.
        """
        param = self.param.concat_param
        if param.HasField("axis") and param.HasField("concat_dim"):
            raise ProtoError(f"{self.label}: axis and concat_dim are both given; expected one")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top.

        Raises:
            ShapeError: the shapes differ in other axes.
        """
        param = self.param.concat_param
        index = int(param.concat_dim) if param.HasField("concat_dim") else int(param.axis)
        self.axis = axis = bottom[0].canonical_axis(index, self.label)
        first = bottom[0].shape
        for blob in bottom[1:]:
            others = blob.shape[:axis] + blob.shape[axis + 1 :]
            if blob.num_axes != len(first) or others != first[:axis] + first[axis + 1 :]:
                raise ShapeError(
                    f"{self.label}: bottoms {first} and {blob.shape} cannot be concatenated "
                    f"along axis {axis}; expected equal shapes except for that axis"
                )
        total = sum(blob.shape[axis] for blob in bottom)
        top[0].reshape((*first[:axis], total, *first[axis + 1 :]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy each bottom to its columns of the top."""
        rows, width = top[0].count(0, self.axis), top[0].count(self.axis)
        y, offset = top[0].data.mutable_dev(), 0
        for blob in bottom:
            cols = blob.count(self.axis)
            self.backend.memory.copy_2d(blob.data.dev(), y, rows, cols, (0, cols), (offset, width))
            offset += cols

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Copy the gradients of the columns to the bottoms."""
        rows, width = top[0].count(0, self.axis), top[0].count(self.axis)
        dy, offset = top[0].diff.dev(), 0
        for blob, down in zip(bottom, propagate_down):
            cols = blob.count(self.axis)
            if down:
                dx = blob.diff.mutable_dev()
                self.backend.memory.copy_2d(dy, dx, rows, cols, (offset, width), (0, cols))
            offset += cols

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Concat", *step.inputs, axis=self.axis)]
