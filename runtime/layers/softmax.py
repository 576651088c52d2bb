"""Softmax. Caffe: softmax_layer.cpp. Paper: 2.1."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("Softmax")
class SoftmaxLayer(Layer):
    """Exponentials, normalised to sum to 1 along an axis. May work in place."""

    reads_scores = True
    only_ops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom."""
        self.layout = bottom[0].layout(self.param.softmax_param.axis, self.label)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the probabilities."""
        self.backend.softmax.forward(self.layout, bottom[0].data.dev(), top[0].data.mutable_dev())

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradient of the scores."""
        if propagate_down[0]:
            self.backend.softmax.backward(
                self.layout, top[0].data.dev(), top[0].diff.dev(), bottom[0].diff.mutable_dev()
            )

    def to_onnx(self, step: OnnxStep) -> list[str]:
        axis = step.bottom[0].canonical_axis(self.param.softmax_param.axis)
        return [step.op("Softmax", step.inputs[0], axis=axis)]
