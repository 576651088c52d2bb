"""Sigmoid. Caffe: sigmoid_layer.cpp."""

from __future__ import annotations

from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("Sigmoid")
class SigmoidLayer(NeuronLayer):
    """y = 1 / (1 + exp(-x)). May work in place."""

    only_ops = True

    @property
    def function(self) -> Function:
        return Function(FunctionKind.SIGMOID, 1.0)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Sigmoid", step.inputs[0])]
