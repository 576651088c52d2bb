"""TanH. Caffe: tanh_layer.cpp."""

from __future__ import annotations

from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("TanH")
class TanHLayer(NeuronLayer):
    """y = tanh(x). May work in place."""

    only_ops = True

    @property
    def function(self) -> Function:
        return Function(FunctionKind.TANH)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Tanh", step.inputs[0])]
