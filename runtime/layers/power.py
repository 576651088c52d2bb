"""Power. Caffe: power_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.layer_factory import register
from runtime.layers.neuron import NeuronLayer


@register("Power")
class PowerLayer(NeuronLayer):
    """y = (shift + scale * x) ^ power."""

    def value(self, x: HostArray) -> Any:
        param = self.param.power_param
        if param.power * param.scale == 0:
            return np.full_like(x, 1.0 if param.power == 0 else param.shift**param.power)
        y = x * param.scale + param.shift
        return y if param.power == 1 else y**param.power

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """power * scale * (shift + scale * x)^(power - 1), by a division as Caffe has it."""
        param = self.param.power_param
        factor = param.power * param.scale
        if factor == 0 or param.power == 1:
            return factor
        inner = x * param.scale + param.shift
        return factor * inner if param.power == 2 else factor * (y / inner)
