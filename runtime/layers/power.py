"""Power. Caffe: power_layer.cpp."""

from __future__ import annotations

import numpy as np

from prototxt_gen.errors import ProtoError
from prototxt_gen.number_limits import FLOAT_MAX
from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("Power")
class PowerLayer(NeuronLayer):
    """y = (shift + scale * x) ^ power."""

    only_ops = True

    constant: float | None = None
    """y, if it does not depend on x."""

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the constant result of a power or scale of 0.

        Raises:
            ProtoError: it is not finite.
        """
        param = self.param.power_param
        if param.power * param.scale:
            return
        with np.errstate(all="ignore"):
            constant = float(np.float64(param.shift) ** param.power)
        if not abs(constant) <= FLOAT_MAX:
            raise ProtoError(
                f"{self.label}: shift {param.shift:g} to the power {param.power:g} is not finite; "
                "expected a finite number, since scale is 0; change shift or power"
            )
        self.constant = constant

    @property
    def function(self) -> Function:
        if self.constant is not None:
            return Function(FunctionKind.CONSTANT, self.constant)
        param = self.param.power_param
        return Function(FunctionKind.POWER, param.power, param.scale, param.shift)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param = self.param.power_param
        value = step.affine(step.inputs[0], param.scale, param.shift)
        if param.power != 1:
            value = step.op("Pow", value, step.scalar(param.power, "power"))
        return [value]
