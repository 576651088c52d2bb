"""Window: the base of layers that copy a part of their first bottom."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.layer import Blobs, Layer


class WindowLayer(Layer):
    """Top 0 is the part `window` of bottom 0; `reshape` of a subclass sets it."""

    window: tuple[slice, ...]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the window."""
        top[0].data.mutable_host()[...] = bottom[0].data.host()[self.window]

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Copy the gradient to the window; it is 0 elsewhere."""
        if propagate_down[0]:
            dx = bottom[0].diff.mutable_host()
            dx[...] = 0
            dx[self.window] = top[0].diff.host()
