"""Exp. Caffe: exp_layer.cpp."""

from __future__ import annotations

import math

from prototxt_gen.errors import ProtoError
from prototxt_gen.number_limits import FLOAT_MAX
from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("Exp")
class ExpLayer(NeuronLayer):
    """y = base ^ (scale * x + shift); base -1 means e."""

    only_ops = True

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Combine base, scale and shift to two factors.

        Raises:
            ProtoError: the base is not positive, or a factor is not finite.
        """
        param = self.param.exp_param
        base = float(param.base)
        if base != -1 and base <= 0:
            raise ProtoError(f"{self.label}: base is {base:g}; expected above 0, or -1 for e")
        exponent = 1.0 if base == -1 else math.log(base)
        self.inner, outer = exponent * param.scale, exponent * param.shift
        if not abs(self.inner) <= FLOAT_MAX or outer > math.log(FLOAT_MAX):
            raise ProtoError(
                f"{self.label}: base {base:g} to the scale {param.scale:g} or shift "
                f"{param.shift:g} is not finite; expected numbers below {FLOAT_MAX:g}; use smaller "
                "values"
            )
        self.outer = math.exp(param.shift) if base == -1 else base**param.shift

    @property
    def function(self) -> Function:
        return Function(FunctionKind.EXP, self.inner, self.outer)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param = self.param.exp_param
        base = 1.0 if param.base == -1 else math.log(param.base)
        return [step.op("Exp", step.affine(step.inputs[0], base * param.scale, base * param.shift))]
