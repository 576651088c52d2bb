"""AbsVal. Caffe: absval_layer.cpp."""

from __future__ import annotations

from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("AbsVal")
class AbsValLayer(NeuronLayer):
    """y = |x|."""

    only_ops = True

    @property
    def function(self) -> Function:
        return Function(FunctionKind.ABS)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Abs", step.inputs[0])]
