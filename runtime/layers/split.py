"""Split: several tops with the data of one bottom. Caffe: split_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register


@register("Split")
class SplitLayer(Layer):
    """The tops share the data of the bottom; their gradients are added."""

    inserted_by_net = True
    places = Places.SAME
    only_ops = True

    num_top = at_least(1)
    in_place = False

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Share the data of the bottom with the tops."""
        for blob in top:
            blob.reshape_like(bottom[0])
            blob.share_data(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Share again: a reshaped bottom may have new memory."""
        for blob in top:
            blob.share_data(bottom[0])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Add the gradients of the tops, in their order."""
        if not propagate_down[0]:
            return
        dx = bottom[0].diff.mutable_dev()
        self.backend.memory.copy(top[0].diff.dev(), dx)
        for blob in top[1:]:
            self.backend.vectors.axpy(1.0, blob.diff.dev(), dx)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        """The same values under other names, without a node."""
        return [step.inputs[0]] * len(step.top)
