"""TanH. Caffe: tanh_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("TanH")
class TanHLayer(NeuronLayer):
    """y = tanh(x). May work in place."""

    def value(self, x: HostArray) -> Any:
        return np.tanh(x)

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """Computed from the output."""
        return 1 - y * y

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Tanh", step.inputs[0])]
