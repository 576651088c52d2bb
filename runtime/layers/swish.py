"""Swish. Caffe: swish_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("Swish")
class SwishLayer(NeuronLayer):
    """y = x * sigmoid(beta * x). May work in place: the sigmoid is stored."""

    def value(self, x: HostArray) -> Any:
        self.gate = 0.5 * np.tanh(0.5 * self.param.swish_param.beta * x) + 0.5
        return x * self.gate

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """beta * y + sigmoid * (1 - beta * y)."""
        scaled = self.param.swish_param.beta * y
        return scaled + self.gate * (1 - scaled)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        inner = step.affine(step.inputs[0], self.param.swish_param.beta, 0.0)
        return [step.op("Mul", step.inputs[0], step.op("Sigmoid", inner))]
