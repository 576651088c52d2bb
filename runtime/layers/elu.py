"""ELU. Caffe: elu_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("ELU")
class ELULayer(NeuronLayer):
    """y = x above 0, alpha * (exp(x) - 1) below. May work in place."""

    def value(self, x: HostArray) -> Any:
        return np.maximum(x, 0) + self.param.elu_param.alpha * (np.exp(np.minimum(x, 0)) - 1)

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """In place, x is y; this is valid because they have the same sign."""
        return np.where(x > 0, 1, self.param.elu_param.alpha + y)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Elu", step.inputs[0], alpha=float(self.param.elu_param.alpha))]
