"""Window: the base of layers that copy a part of their first bottom."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.layer import Blobs, Layer
from runtime.layers.strided import StridedCopy, Strides


class WindowLayer(Layer):
    """Top 0 is the part `window` of bottom 0; `reshape` of a subclass sets it."""

    window: tuple[slice, ...]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the window."""
        part, whole = self._places(bottom, top)
        copy = StridedCopy(top[0].shape, part, whole)
        copy.run(self.backend, bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Copy the gradient to the window; it is 0 elsewhere."""
        if propagate_down[0]:
            part, whole = self._places(bottom, top)
            copy = StridedCopy(top[0].shape, whole, part)
            whole_blob = top[0].count() == bottom[0].count()
            copy.run(self.backend, top[0].diff, bottom[0].diff, whole=whole_blob)

    def _places(self, bottom: Blobs, top: Blobs) -> tuple[Strides, Strides]:
        """The places of the top's elements in the bottom and in the top."""
        starts = [part.start for part in self.window]
        return Strides.of(bottom[0].shape).window(starts), Strides.of(top[0].shape)
