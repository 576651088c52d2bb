"""Normalize: divide by the L2 norm and multiply by a scale. Caffe: SSD's normalize_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ShapeError
from prototxt_gen.geometry_limits import image_shape
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("Normalize")
class NormalizeLayer(Layer):
    """y = scale * x / sqrt(sum of x^2 + eps), the sum over the item or over the channels.

    Shapes: bottom (N,C,H,W); blobs[0] (), or (C,) without channel_shared.
    """

    in_place = False
    places = Places.SAME

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Make and fill the scale; 1 without a filler."""
        param = self.param.norm_param
        channels = image_shape(bottom[0].shape, self.label)[1]
        shape = () if param.channel_shared else (channels,)
        self.blobs = [Blob(self.backend, shape, "scale")]
        filler = param.scale_filler
        if not param.HasField("scale_filler"):
            filler = proto.FillerParameter(type="constant", value=1)
        fill_weight(self, 0, filler)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom.

        Raises:
            ShapeError: the number of channels has changed.
        """
        channels = image_shape(bottom[0].shape, self.label)[1]
        if self.blobs[0].num_axes and channels != self.blobs[0].count():
            raise ShapeError(
                f"{self.label}: expected {self.blobs[0].count()} channels as when the net was "
                f"made, got shape {bottom[0].shape}"
            )
        self.axes = (1, 2, 3) if self.param.norm_param.across_spatial else (1,)
        top[0].reshape_like(bottom[0])

    def _scale(self) -> Any:
        return self.blobs[0].data.host().reshape(1, -1, 1, 1)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Normalise."""
        x = bottom[0].data.host()
        total = np.square(x).sum(axis=self.axes, keepdims=True)
        self.norm = np.sqrt(total + self.param.norm_param.eps)
        top[0].data.mutable_host()[...] = x / self.norm * self._scale()

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of the scale and of the input, through the norm."""
        dy = top[0].diff.host()
        unit = bottom[0].data.host() / self.norm
        if self.propagates_to_params(0):
            share = (dy * unit).sum(axis=(0, 2, 3))
            blob = self.blobs[0]
            blob.diff.mutable_host()[...] += share if blob.num_axes else share.sum()
        if propagate_down[0]:
            scaled = dy * self._scale()
            along = (scaled * unit).sum(axis=self.axes, keepdims=True)
            bottom[0].diff.mutable_host()[...] = (scaled - unit * along) / self.norm

    def to_onnx(self, step: OnnxStep) -> list[str]:
        value = step.inputs[0]
        square = step.op("Mul", value, value)
        total = step.reduce("ReduceSum", square, self.axes)
        norm = step.op("Sqrt", step.affine(total, 1.0, float(self.param.norm_param.eps)))
        unit = step.op("Div", value, norm)
        return [step.op("Mul", unit, step.weight(0, (1, self.blobs[0].count(), 1, 1)))]
