"""The base class of layers whose top is the bottom in another shape."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.layer import Blobs, Layer


class ViewLayer(Layer):
    """Gives the bottom another shape, computed by `top_shape`; top and bottom share memory."""

    in_place = False

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top and share the memory."""
        top[0].reshape(self.top_shape(bottom))
        top[0].share_data(bottom[0])
        top[0].share_diff(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Share again: a reshaped bottom may have new memory."""
        top[0].share_data(bottom[0])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Share the gradient."""
        bottom[0].share_diff(top[0])

    def top_shape(self, bottom: Blobs) -> Sequence[int]:
        """The shape of the top, with as many elements as the bottom."""
        raise NotImplementedError(f"{self.label}: a view layer must define top_shape")
