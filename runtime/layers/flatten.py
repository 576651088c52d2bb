"""Flatten: several axes into one. Caffe: flatten_layer.cpp."""

from __future__ import annotations

from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.view import ViewLayer


@register("Flatten")
class FlattenLayer(ViewLayer):
    """Joins the axes `axis` .. `end_axis`; top and bottom share memory."""

    only_ops = True

    def top_shape(self, bottom: Blobs) -> tuple[int, ...]:
        param = self.param.flatten_param
        start = bottom[0].canonical_axis(param.axis, self.label)
        end = bottom[0].canonical_axis(param.end_axis, self.label) + 1
        shape = bottom[0].shape
        return (*shape[:start], bottom[0].count(start, end), *shape[end:])

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.reshape(step.inputs[0], step.top[0].shape)]
