"""Sigmoid. Caffe: sigmoid_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("Sigmoid")
class SigmoidLayer(NeuronLayer):
    """y = 1 / (1 + exp(-x)). May work in place."""

    def value(self, x: HostArray) -> Any:
        """Computed by tanh, which does not overflow."""
        return 0.5 * np.tanh(0.5 * x) + 0.5

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """Computed from the output."""
        return y * (1 - y)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Sigmoid", step.inputs[0])]
