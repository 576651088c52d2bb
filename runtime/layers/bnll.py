"""BNLL. Caffe: bnll_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("BNLL")
class BNLLLayer(NeuronLayer):
    """y = log(1 + exp(x)), the binomial normal log likelihood."""

    def value(self, x: HostArray) -> Any:
        """A form that does not overflow."""
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """x is limited to 50, above which the result is 1 in float32."""
        e = np.exp(np.minimum(x, 50.0))
        return e / (e + 1)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Softplus", step.inputs[0])]
