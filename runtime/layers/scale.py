"""Scale: multiplication by a weight or second bottom, broadcast. Caffe: scale_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen import proto
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.filler import fill_weight
from runtime.core.folding import ChannelMap, exact_values
from runtime.core.layer import Blobs, Layer, between
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory
from runtime.layers.broadcast import broadcast_axes, factor_shape, onnx_factor


@register("Scale")
class ScaleLayer(Layer):
    """y = x * factor (+ bias); the factor is the second bottom, or a weight. May work in place.

    Shapes: the factor has the bottom's axes `axis` .. `axis + num_axes - 1`.
    """

    applies_densely = True
    places = Places.SAME
    only_ops = True
    can_rectify = True

    num_bottom = between(1, 2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill factor and bias."""
        param = self.param.scale_param
        self.blobs = []
        shape: tuple[int, ...]
        if len(bottom) == 1:
            shape = factor_shape(bottom[0], param.axis, param.num_axes, self.label)
            self.blobs = [Blob(self.backend, shape, "scale")]
            filler = param.filler
            if not param.HasField("filler"):
                filler = proto.FillerParameter(type="constant", value=1)
            fill_weight(self, 0, filler)
        else:
            shape = bottom[1].shape
        if param.bias_term:
            self.blobs.append(Blob(self.backend, shape, "bias"))
            fill_weight(self, -1, param.bias_filler)
        self.kept_input = SyncedMemory(self.backend)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Determine the axes of the factor.

        Raises:
            ShapeError: the shapes do not agree.
        """
        factor = bottom[1] if len(bottom) > 1 else self.blobs[0]
        self.axes = broadcast_axes(bottom[0], factor, self.param.scale_param.axis, self.label)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Multiply and add; in place, keep the input for the gradient of the factor."""
        self._apply(bottom, top, relu=False)

    def forward_relu(self, bottom: Blobs, top: Blobs) -> None:
        """Multiply, add, and apply a ReLU."""
        self._apply(bottom, top, relu=True)

    def _apply(self, bottom: Blobs, top: Blobs, *, relu: bool) -> None:
        x = bottom[0].data.dev()
        if top[0] is bottom[0] and not self.context.never_backward(self.phase):
            self.kept_input.reshape(bottom[0].shape)
            self.backend.memory.copy(x, self.kept_input.mutable_dev())
        factor = (bottom[1] if len(bottom) > 1 else self.blobs[0]).data.dev()
        bias = self.blobs[-1].data.dev() if self.param.scale_param.bias_term else None
        affine, y = self.backend.pointwise.affine, top[0].data.mutable_dev()
        affine(self.axes.layout, x, None, factor, bias, relu, y)

    @property
    def maps_channels(self) -> bool:
        """Whether the factor is a weight of axis 1."""
        own = len(self.blobs) == 1 + self.param.scale_param.bias_term
        return own and self.axes.start == 1 and self.blobs[0].num_axes == 1

    def channel_map(self) -> ChannelMap:
        """See Layer.channel_map."""
        factor = exact_values(self.blobs[0])
        has_bias = self.param.scale_param.bias_term
        shift = exact_values(self.blobs[1]) if has_bias else np.zeros_like(factor)
        return ChannelMap(np.zeros_like(factor), factor, shift)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of bias, factor and input."""
        layout, dy = self.axes.layout, top[0].diff.dev()
        x = self.kept_input if top[0] is bottom[0] else bottom[0].data
        pointwise = self.backend.pointwise
        last = len(self.blobs) - 1
        if self.param.scale_param.bias_term and self.propagates_to_params(last):
            db = self.blobs[-1].diff.mutable_dev()
            self.backend.products.bias_backward(layout, dy, db)
        if len(bottom) > 1:
            if propagate_down[1]:
                self.backend.memory.fill(bottom[1].diff.mutable_dev(), 0.0)
                pointwise.product_sums(layout, x.dev(), dy, bottom[1].diff.mutable_dev())
        elif self.propagates_to_params(0):
            pointwise.product_sums(layout, x.dev(), dy, self.blobs[0].diff.mutable_dev())
        if propagate_down[0]:
            factor = (bottom[1] if len(bottom) > 1 else self.blobs[0]).data.dev()
            dx = bottom[0].diff.mutable_dev()
            pointwise.affine(layout, dy, None, factor, None, False, dx)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        value = step.op("Mul", step.inputs[0], onnx_factor(step, self.axes.shape))
        if self.param.scale_param.bias_term:
            value = step.op("Add", value, step.weight(len(self.blobs) - 1, self.axes.shape))
        return [value]
