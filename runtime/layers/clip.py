"""Clip. Caffe: clip_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("Clip")
class ClipLayer(NeuronLayer):
    """y = x limited to min .. max."""

    def value(self, x: HostArray) -> Any:
        return np.clip(x, self.param.clip_param.min, self.param.clip_param.max)

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """1 inside the limits, including them, else 0."""
        return (x >= self.param.clip_param.min) & (x <= self.param.clip_param.max)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param = self.param.clip_param
        low, high = step.scalar(param.min, "min"), step.scalar(param.max, "max")
        return [step.op("Clip", step.inputs[0], low, high)]
