"""Bias: addition of a weight or second bottom, broadcast. Caffe: bias_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer, between
from runtime.core.layer_registry import register
from runtime.layers.broadcast import broadcast_axes, factor_shape, onnx_factor


@register("Bias")
class BiasLayer(Layer):
    """y = x + bias; the bias is the second bottom, or a weight. May work in place.

    Shapes: the bias has the bottom's axes `axis` .. `axis + num_axes - 1`.
    """

    applies_densely = True
    places = Places.SAME

    num_bottom = between(1, 2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill the bias, unless it is a bottom."""
        if len(bottom) == 1:
            param = self.param.bias_param
            shape = factor_shape(bottom[0], param.axis, param.num_axes, self.label)
            self.blobs = [Blob(self.backend, shape, "bias")]
            fill_weight(self, 0, param.filler)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Determine the axes of the bias.

        Raises:
            ShapeError: the shapes do not agree.
        """
        bias = bottom[1] if len(bottom) > 1 else self.blobs[0]
        self.axes = broadcast_axes(bottom[0], bias, self.param.bias_param.axis, self.label)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Add the bias."""
        bias = bottom[1] if len(bottom) > 1 else self.blobs[0]
        y = bottom[0].data.host() + bias.data.host().reshape(self.axes.shape)
        top[0].data.mutable_host()[...] = y

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of bias and input."""
        dy = top[0].diff.host()
        if len(bottom) > 1:
            if propagate_down[1]:
                total = self.axes.reduce(dy).reshape(bottom[1].shape)
                bottom[1].diff.mutable_host()[...] = total
        elif self.propagates_to_params(0):
            blob = self.blobs[0]
            blob.diff.mutable_host()[...] += self.axes.reduce(dy).reshape(blob.shape)
        if propagate_down[0] and top[0] is not bottom[0]:
            bottom[0].diff.mutable_host()[...] = dy

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Add", step.inputs[0], onnx_factor(step, self.axes.shape))]
