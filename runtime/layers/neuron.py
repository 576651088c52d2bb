"""The base of layers that map each number by itself. Caffe: neuron_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.backend.base import HostArray
from runtime.core.description import Places
from runtime.core.layer import Blobs, Layer


class NeuronLayer(Layer):
    """A function and its slope, computed on the host: no kernel is worth its keep here."""

    applies_densely = True
    places = Places.SAME

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Top as bottom."""
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Apply `value`."""
        x = bottom[0].data.host()
        top[0].data.mutable_host()[...] = self.value(x)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Multiply by `slope`."""
        if propagate_down[0]:
            slope = self.slope(bottom[0].data.host(), top[0].data.host())
            bottom[0].diff.mutable_host()[...] = top[0].diff.host() * slope

    def value(self, x: HostArray) -> Any:
        """f(x)."""
        raise TypeError(f"{self.label}: a neuron layer must define value")

    def slope(self, x: HostArray, y: HostArray) -> Any:
        """f'(x); y is f(x), and in place x is y."""
        raise TypeError(f"{self.label}: a neuron layer must define slope")
