"""AbsVal. Caffe: absval_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("AbsVal")
class AbsValLayer(NeuronLayer):
    """y = |x|."""

    def value(self, x: HostArray) -> Any:
        return np.abs(x)

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """0 at 0."""
        return np.sign(x)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Abs", step.inputs[0])]
