"""Silence: reads unused blobs. Caffe: silence_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer, at_least, exactly
from runtime.core.layer_registry import register


@register("Silence")
class SilenceLayer(Layer):
    """Its bottoms are not outputs of the net, and their gradient is 0."""

    only_ops = True

    num_bottom, num_top = at_least(1), exactly(0)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Do nothing: there are no tops."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Do nothing."""

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Set the gradients to 0."""
        for blob, down in zip(bottom, propagate_down):
            if down:
                self.backend.memory.fill(blob.diff.mutable_dev(), 0.0)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return []
