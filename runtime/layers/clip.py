"""Clip. Caffe: clip_layer.cpp."""

from __future__ import annotations

from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("Clip")
class ClipLayer(NeuronLayer):
    """y = x limited to min .. max."""

    only_ops = True

    @property
    def function(self) -> Function:
        param = self.param.clip_param
        return Function(FunctionKind.CLIP, param.min, param.max)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param = self.param.clip_param
        low, high = step.scalar(param.min, "min"), step.scalar(param.max, "max")
        return [step.op("Clip", step.inputs[0], low, high)]
