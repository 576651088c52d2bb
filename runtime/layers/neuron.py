"""The base class of element-wise layers. Caffe: neuron_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.backend.base import Function
from runtime.core.description import Places
from runtime.core.layer import Blobs, Layer


class NeuronLayer(Layer):
    """A function of one number and its gradient. Subclasses set `only_ops`."""

    applies_densely = True
    places = Places.SAME

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom."""
        top[0].reshape_like(bottom[0])

    @property
    def function(self) -> Function:
        """The function of the layer, from its parameters."""
        raise TypeError(f"{self.label}: a neuron layer must define function")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Apply the function."""
        x, y = bottom[0].data.dev(), top[0].data.mutable_dev()
        self.backend.pointwise.function_forward(self.function, x, y)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Multiply by the slope."""
        if propagate_down[0]:
            x, y, dy = bottom[0].data.dev(), top[0].data.dev(), top[0].diff.dev()
            dx = bottom[0].diff.mutable_dev()
            self.backend.pointwise.function_backward(self.function, x, y, dy, dx)
