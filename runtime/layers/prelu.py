"""PReLU: ReLU with a learnt slope below 0. Caffe: prelu_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ShapeError
from runtime.backend.base import HostArray
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("PReLU")
class PReLULayer(Layer):
    """y = x above 0, slope[c] * x below. May work in place.

    Shapes: bottom (N,C,...); blobs[0] (C,), or () with channel_shared.
    """

    applies_densely = True
    places = Places.SAME

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill the slopes, by default with 0.25.

        Raises:
            ShapeError: the bottom has fewer than 2 axes.
        """
        if bottom[0].num_axes < 2:
            raise ShapeError(
                f"{self.label}: expected at least 2 axes (N,C,...), got {bottom[0].shape}"
            )
        param = self.param.prelu_param
        shape = () if param.channel_shared else (bottom[0].shape[1],)
        self.blobs = [Blob(self.backend, shape, "slope")]
        filler = param.filler
        if not param.HasField("filler"):
            filler = proto.FillerParameter(type="constant", value=0.25)
        fill_weight(self, 0, filler)
        self.input: HostArray | None = None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom.

        Raises:
            ShapeError: the number of channels has changed.
        """
        shared = self.param.prelu_param.channel_shared
        if not shared and bottom[0].shape[1:2] != self.blobs[0].shape:
            raise ShapeError(
                f"{self.label}: expected {self.blobs[0].count()} channels as when the net was "
                f"built, got shape {bottom[0].shape}"
            )
        top[0].reshape_like(bottom[0])

    def _slope(self, axes: int) -> Any:
        return self.blobs[0].data.host().reshape((1, -1) + (1,) * (axes - 2))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Apply the function; in place, keep the input for the gradient."""
        x = bottom[0].data.host()
        self.input = x.copy() if top[0] is bottom[0] else None
        y = np.maximum(x, 0) + self._slope(x.ndim) * np.minimum(x, 0)
        top[0].data.mutable_host()[...] = y

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of slopes and input."""
        x = bottom[0].data.host() if self.input is None else self.input
        dy = top[0].diff.host()
        if self.propagates_to_params(0):
            share = np.where(x <= 0, dy * x, 0)
            axes = None if self.blobs[0].num_axes == 0 else (0, *range(2, x.ndim))
            self.blobs[0].diff.mutable_host()[...] += share.sum(axis=axes)
        if propagate_down[0]:
            bottom[0].diff.mutable_host()[...] = np.where(x > 0, dy, dy * self._slope(x.ndim))

    def to_onnx(self, step: OnnxStep) -> list[str]:
        # The slope broadcasts from the right: (C,1,1) over (N,C,H,W).
        shape = (self.blobs[0].count(),) + (1,) * (len(step.bottom[0].shape) - 2)
        return [step.op("PRelu", step.inputs[0], step.weight(0, shape))]
