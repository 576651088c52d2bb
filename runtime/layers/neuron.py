"""The base class of element-wise layers. Caffe: neuron_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.backend.base import HostArray
from runtime.core.description import Places
from runtime.core.layer import Blobs, Layer


class NeuronLayer(Layer):
    """An element-wise function and its derivative, computed on the host with NumPy."""

    applies_densely = True
    places = Places.SAME

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom."""
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """y = value(x)."""
        x = bottom[0].data.host()
        top[0].data.mutable_host()[...] = self.value(x)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """dx = dy * slope(x, y)."""
        if propagate_down[0]:
            slope = self.slope(bottom[0].data.host(), top[0].data.host())
            bottom[0].diff.mutable_host()[...] = top[0].diff.host() * slope

    def value(self, x: HostArray) -> Any:
        """f(x). Shapes: any; the result as x."""
        raise NotImplementedError(f"{self.label}: a neuron layer must define value")

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """f'(x), where y is f(x); in place, x is y. Shapes: y and the result as x."""
        raise NotImplementedError(f"{self.label}: a neuron layer must define slope")
