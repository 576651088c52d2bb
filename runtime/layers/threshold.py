"""Threshold. Caffe: threshold_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ProtoError
from runtime.backend.base import Function, FunctionKind
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.neuron import NeuronLayer


@register("Threshold")
class ThresholdLayer(NeuronLayer):
    """y = 1 above the threshold, else 0; no gradient."""

    only_ops = True

    @property
    def function(self) -> Function:
        return Function(FunctionKind.THRESHOLD, self.param.threshold_param.threshold)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Raise an error: a step function has no gradient.

        Raises:
            ProtoError: a gradient is requested.
        """
        if propagate_down[0]:
            raise ProtoError(f"{self.label}: has no gradient; set propagate_down: false")

    def to_onnx(self, step: OnnxStep) -> list[str]:
        threshold = step.scalar(self.param.threshold_param.threshold, "threshold")
        above = step.op("Greater", step.inputs[0], threshold)
        # 1 is float32 in ONNX.
        return [step.op("Cast", above, to=1)]
