"""ShuffleChannel: mix the channels of groups. Caffe: ShuffleNet's shuffle_channel_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ShapeError
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory
from runtime.layers.strided import StridedCopy, Strides


@register("ShuffleChannel")
class ShuffleChannelLayer(Layer):
    """The channels as a matrix (group, C/group) are transposed.

    Shapes: bottom and top (N,C,...).
    """

    applies_densely = True
    in_place = False
    only_ops = True
    places = Places.SAME

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom.

        Raises:
            ShapeError: the group does not divide the channels.
        """
        self.group = int(self.param.shuffle_channel_param.group)
        shape = bottom[0].shape
        if len(shape) < 2 or self.group < 1 or shape[1] % self.group:
            raise ShapeError(
                f"{self.label}: group {self.group} does not divide the channels; expected (N,C,"
                f"...) with C a multiple of the group, got shape {shape}; correct the group"
            )
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Transpose the channels."""
        self._transpose(bottom[0].data, top[0].data, self.group)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Transpose back."""
        if propagate_down[0]:
            rest = max(1, bottom[0].shape[1] // self.group)
            self._transpose(top[0].diff, bottom[0].diff, rest)

    def _transpose(self, source: SyncedMemory, target: SyncedMemory, rows: int) -> None:
        n, c, *rest = source.shape
        shape = (n, c // rows, rows, *rest)
        swapped = [0, 2, 1, *range(3, len(shape))]
        places = Strides.of((n, rows, c // rows, *rest)).permuted(swapped)
        StridedCopy(shape, places, Strides.of(shape)).run(self.backend, source, target)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        n, c, *rest = step.bottom[0].shape
        value = step.reshape(step.inputs[0], (n, self.group, c // self.group, *rest))
        perm = [0, 2, 1, *range(3, 3 + len(rest))]
        return [step.reshape(step.op("Transpose", value, perm=perm), step.top[0].shape)]
