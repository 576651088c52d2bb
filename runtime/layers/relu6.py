"""ReLU6: a ReLU that is limited to 6. Caffe: relu6_layer.cpp of MobileNet's builds."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer

_LIMIT = 6.0


@register("ReLU6")
class ReLU6Layer(NeuronLayer):
    """y = min(max(x, 0), 6). May work in place."""

    def value(self, x: HostArray) -> Any:
        return np.clip(x, 0.0, _LIMIT)

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """1 between the limits, both excluded, so that the output is enough in place."""
        return (y > 0) & (y < _LIMIT)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        low, high = step.scalar(0.0, "min"), step.scalar(_LIMIT, "max")
        return [step.op("Clip", step.inputs[0], low, high)]
