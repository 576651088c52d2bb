"""ELU. Caffe: elu_layer.cpp."""

from __future__ import annotations

from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("ELU")
class ELULayer(NeuronLayer):
    """y = x above 0, alpha * (exp(x) - 1) below. May work in place."""

    only_ops = True

    @property
    def function(self) -> Function:
        return Function(FunctionKind.ELU, self.param.elu_param.alpha)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Elu", step.inputs[0], alpha=float(self.param.elu_param.alpha))]
