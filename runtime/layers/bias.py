"""Bias: addition of a weight or second bottom, broadcast. Caffe: bias_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.filler import fill_weight
from runtime.core.folding import ChannelMap, exact_values
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
    only_ops = True
    can_rectify = True

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
        self._add(bottom, top, relu=False)

    def forward_relu(self, bottom: Blobs, top: Blobs) -> None:
        """Add the bias and apply a ReLU."""
        self._add(bottom, top, relu=True)

    def _add(self, bottom: Blobs, top: Blobs, *, relu: bool) -> None:
        bias = bottom[1] if len(bottom) > 1 else self.blobs[0]
        x, y = bottom[0].data.dev(), top[0].data.mutable_dev()
        affine = self.backend.pointwise.affine
        affine(self.axes.layout, x, None, None, bias.data.dev(), relu, y)

    @property
    def maps_channels(self) -> bool:
        """Whether the bias is a weight of axis 1."""
        return bool(self.blobs) and self.axes.start == 1 and self.blobs[0].num_axes == 1

    def channel_map(self) -> ChannelMap:
        """See Layer.channel_map."""
        shift = exact_values(self.blobs[0])
        return ChannelMap(np.zeros_like(shift), np.ones_like(shift), shift)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of bias and input."""
        dy, memory = top[0].diff.dev(), self.backend.memory
        bias: Blob | None = None
        if len(bottom) == 1 and self.propagates_to_params(0):
            bias = self.blobs[0]
        elif len(bottom) > 1 and propagate_down[1]:
            bias = bottom[1]
            memory.fill(bias.diff.mutable_dev(), 0.0)
        if bias is not None:
            self.backend.products.bias_backward(self.axes.layout, dy, bias.diff.mutable_dev())
        if propagate_down[0] and top[0] is not bottom[0]:
            memory.copy(dy, bottom[0].diff.mutable_dev())

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Add", step.inputs[0], onnx_factor(step, self.axes.shape))]
