"""ReLU. Caffe: relu_layer.cpp. Paper: 2.1."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("ReLU")
class ReLULayer(Layer):
    """y = max(x, 0), or negative_slope * x below 0. May work in place."""

    applies_densely = True
    places = Places.SAME
    only_ops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom."""
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Apply the function."""
        slope = self.param.relu_param.negative_slope
        self.backend.neurons.relu_forward(bottom[0].data.dev(), top[0].data.mutable_dev(), slope)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """The gradient where the input is positive; in place, the output has the same sign."""
        if propagate_down[0]:
            slope = self.param.relu_param.negative_slope
            self.backend.neurons.relu_backward(
                bottom[0].data.dev(), top[0].diff.dev(), bottom[0].diff.mutable_dev(), slope
            )

    @property
    def rectifies(self) -> bool:
        """Whether negative_slope is 0."""
        return not self.param.relu_param.negative_slope

    def to_onnx(self, step: OnnxStep) -> list[str]:
        slope = float(self.param.relu_param.negative_slope)
        if slope == 0:
            return [step.op("Relu", step.inputs[0])]
        return [step.op("LeakyRelu", step.inputs[0], alpha=slope)]
