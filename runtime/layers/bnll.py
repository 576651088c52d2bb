"""BNLL. Caffe: bnll_layer.cpp."""

from __future__ import annotations

from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("BNLL")
class BNLLLayer(NeuronLayer):
    """y = log(1 + exp(x)), the binomial normal log likelihood."""

    only_ops = True

    @property
    def function(self) -> Function:
        return Function(FunctionKind.BNLL)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Softplus", step.inputs[0])]
