"""Flatten: several axes into one. Caffe: flatten_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("Flatten")
class FlattenLayer(Layer):
    """Joins the axes `axis` .. `end_axis`; top and bottom share memory."""

    only_ops = True
    in_place = False

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Join the axes."""
        param = self.param.flatten_param
        start = bottom[0].canonical_axis(param.axis, self.label)
        end = bottom[0].canonical_axis(param.end_axis, self.label) + 1
        shape = bottom[0].shape
        top[0].reshape((*shape[:start], bottom[0].count(start, end), *shape[end:]))
        top[0].share_data(bottom[0])
        top[0].share_diff(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Share again: a reshaped bottom may have new memory."""
        top[0].share_data(bottom[0])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Share the gradient."""
        bottom[0].share_diff(top[0])

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.reshape(step.inputs[0], step.top[0].shape)]
