"""Swish. Caffe: swish_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory
from runtime.layers.neuron import NeuronLayer


@register("Swish")
class SwishLayer(NeuronLayer):
    """y = x * sigmoid(beta * x). May work in place: the sigmoid is stored."""

    only_ops = True

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Make the memory of the sigmoid."""
        self.gate = SyncedMemory(self.backend)

    @property
    def function(self) -> Function:
        """The sigmoid that the input is multiplied by."""
        return Function(FunctionKind.SIGMOID, self.param.swish_param.beta)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Multiply by the sigmoid."""
        pointwise, x = self.backend.pointwise, bottom[0].data.dev()
        self.gate.reshape(bottom[0].shape)
        gate = self.gate.mutable_dev()
        pointwise.function_forward(self.function, x, gate)
        pointwise.eltwise_product([x, gate], top[0].data.mutable_dev())

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Multiply by beta * y + sigmoid * (1 - beta * y)."""
        if propagate_down[0]:
            y, dy, gate = top[0].data.dev(), top[0].diff.dev(), self.gate.dev()
            dx, beta = bottom[0].diff.mutable_dev(), self.param.swish_param.beta
            self.backend.pointwise.swish_backward(beta, gate, y, dy, dx)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        inner = step.affine(step.inputs[0], self.param.swish_param.beta, 0.0)
        return [step.op("Mul", step.inputs[0], step.op("Sigmoid", inner))]
