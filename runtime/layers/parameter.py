"""Parameter: a weight as a top. Caffe: parameter_layer.hpp."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.blob import Blob
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register


@register("Parameter")
class ParameterLayer(Layer):
    """The top is the weight, initially zero; the gradient of the weight is that of the top."""

    top_is_weight = True

    num_bottom = exactly(0)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create the weight."""
        shape = [int(d) for d in self.param.parameter_param.shape.dim]
        self.blobs = [Blob(self.backend, shape, "parameter")]
        top[0].reshape(shape)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Do nothing: the shape is fixed."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Share data and gradient of the weight."""
        top[0].share_data(self.blobs[0])
        top[0].share_diff(self.blobs[0])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Do nothing: the gradients share memory."""

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.weight(0)]
