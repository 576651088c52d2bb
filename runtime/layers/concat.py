"""Concat. Caffe: concat_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register


@register("Concat")
class ConcatLayer(Layer):
    """Bottoms side by side along an axis; the other axes agree."""

    applies_densely = True
    places = Places.SHIFTED
    only_ops = True

    num_bottom = at_least(1)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the axis is said once."""
        param = self.param.concat_param
        if param.HasField("axis") and param.HasField("concat_dim"):
            raise ProtoError(f"{self.label}: axis and concat_dim are both given; expected one")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Sum the axis."""
        param = self.param.concat_param
        wanted = int(param.concat_dim) if param.HasField("concat_dim") else int(param.axis)
        self.axis = axis = bottom[0].canonical_axis(wanted, self.label)
        first = bottom[0].shape
        for blob in bottom[1:]:
            others = blob.shape[:axis] + blob.shape[axis + 1 :]
            if blob.num_axes != len(first) or others != first[:axis] + first[axis + 1 :]:
                raise ShapeError(
                    f"{self.label}: bottoms {first} and {blob.shape} cannot stand side by side "
                    f"along axis {axis}; expected equal shapes but for that axis"
                )
        total = sum(blob.shape[axis] for blob in bottom)
        top[0].reshape((*first[:axis], total, *first[axis + 1 :]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy each bottom into its columns."""
        rows, width = top[0].count(0, self.axis), top[0].count(self.axis)
        y, at = top[0].data.mutable_dev(), 0
        for blob in bottom:
            cols = blob.count(self.axis)
            self.backend.memory.copy_2d(blob.data.dev(), y, rows, cols, (0, cols), (at, width))
            at += cols

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Copy the columns back."""
        rows, width = top[0].count(0, self.axis), top[0].count(self.axis)
        dy, at = top[0].diff.dev(), 0
        for blob, down in zip(bottom, propagate_down):
            cols = blob.count(self.axis)
            if down:
                dx = blob.diff.mutable_dev()
                self.backend.memory.copy_2d(dy, dx, rows, cols, (at, width), (0, cols))
            at += cols

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Concat", *step.inputs, axis=self.axis)]
