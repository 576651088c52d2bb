"""Log. Caffe: log_layer.cpp."""

from __future__ import annotations

import math

from prototxt_gen.errors import ProtoError
from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("Log")
class LogLayer(NeuronLayer):
    """y = log_base(scale * x + shift); base -1 means e."""

    only_ops = True

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Convert the base to a factor.

        Raises:
            ProtoError: the base is not positive, or 1.
        """
        base = float(self.param.log_param.base)
        if base != -1 and (base <= 0 or base == 1):
            raise ProtoError(
                f"{self.label}: base is {base:g}; expected above 0 and not 1, or -1 for e"
            )
        self.factor = 1.0 if base == -1 else 1.0 / math.log(base)

    @property
    def function(self) -> Function:
        param = self.param.log_param
        return Function(FunctionKind.LOG, param.scale, param.shift, self.factor)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param = self.param.log_param
        value = step.op("Log", step.affine(step.inputs[0], param.scale, param.shift))
        return [step.affine(value, self.factor, 0.0)]
