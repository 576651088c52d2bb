"""ReLU6: a ReLU that is limited to 6. Caffe: relu6_layer.cpp of MobileNet's builds."""

from __future__ import annotations

from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("ReLU6")
class ReLU6Layer(NeuronLayer):
    """y = min(max(x, 0), 6). May work in place."""

    only_ops = True

    @property
    def function(self) -> Function:
        return Function(FunctionKind.RELU6)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        low, high = step.scalar(0.0, "min"), step.scalar(6.0, "max")
        return [step.op("Clip", step.inputs[0], low, high)]
