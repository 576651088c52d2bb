"""Scale: multiplication by a weight or second bottom, broadcast. Caffe: scale_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from runtime.backend.base import HostArray
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer, between
from runtime.core.layer_registry import register
from runtime.layers.broadcast import broadcast_axes, factor_shape, onnx_factor


@register("Scale")
class ScaleLayer(Layer):
    """y = x * factor (+ bias); the factor is the second bottom, or a weight. May work in place.

    Shapes: the factor has the bottom's axes `axis` .. `axis + num_axes - 1`.
    """

    applies_densely = True
    places = Places.SAME

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
        self.input: HostArray | None = None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Determine the axes of the factor.

        Raises:
            ShapeError: the shapes do not agree.
        """
        factor = bottom[1] if len(bottom) > 1 else self.blobs[0]
        self.axes = broadcast_axes(bottom[0], factor, self.param.scale_param.axis, self.label)
        top[0].reshape_like(bottom[0])

    def _factor(self, bottom: Blobs) -> Any:
        factor = bottom[1] if len(bottom) > 1 else self.blobs[0]
        return factor.data.host().reshape(self.axes.shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Multiply and add; in place, keep the input for the gradient of the factor."""
        x = bottom[0].data.host()
        self.input = x.copy() if top[0] is bottom[0] else None
        y = x * self._factor(bottom)
        if self.param.scale_param.bias_term:
            y += self.blobs[-1].data.host().reshape(self.axes.shape)
        top[0].data.mutable_host()[...] = y

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of bias, factor and input."""
        dy = top[0].diff.host()
        x = bottom[0].data.host() if self.input is None else self.input
        bias_index = len(self.blobs) - 1
        if self.param.scale_param.bias_term and self.propagates_to_params(bias_index):
            blob = self.blobs[-1]
            blob.diff.mutable_host()[...] += self.axes.reduce(dy).reshape(blob.shape)
        if len(bottom) > 1:
            if propagate_down[1]:
                slope = self.axes.reduce(dy * x).reshape(bottom[1].shape)
                bottom[1].diff.mutable_host()[...] = slope
        elif self.propagates_to_params(0):
            blob = self.blobs[0]
            blob.diff.mutable_host()[...] += self.axes.reduce(dy * x).reshape(blob.shape)
        if propagate_down[0]:
            bottom[0].diff.mutable_host()[...] = np.multiply(dy, self._factor(bottom))

    def to_onnx(self, step: OnnxStep) -> list[str]:
        value = step.op("Mul", step.inputs[0], onnx_factor(step, self.axes.shape))
        if self.param.scale_param.bias_term:
            value = step.op("Add", value, step.weight(len(self.blobs) - 1, self.axes.shape))
        return [value]
