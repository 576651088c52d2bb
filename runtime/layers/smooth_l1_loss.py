"""SmoothL1Loss: squared near 0, else linear. Caffe: Fast R-CNN's smooth_L1_loss_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen.errors import ShapeError
from runtime.core.layer import Blobs, Layer, between
from runtime.core.layer_registry import register


@register("SmoothL1Loss")
class SmoothL1LossLayer(Layer):
    """The sum of outside * f(inside * (a - b)), divided by the number of samples.

    f(d) = 0.5 * sigma^2 * d^2 where |d| < 1 / sigma^2, |d| - 0.5 / sigma^2 elsewhere.

    Shapes: bottoms a, b, and where given the weights inside and outside, alike (N, ...); top
    scalar.
    """

    num_bottom = between(2, 4)
    auto_top_blobs = is_loss = True

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True except for the weights."""
        return bottom_index < 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the bottoms agree.

        Raises:
            ShapeError: their shapes differ.
        """
        self.samples(bottom[0], least=1)
        for blob in bottom[1:]:
            if blob.shape[:1] != bottom[0].shape[:1] or blob.count() != bottom[0].count():
                raise ShapeError(
                    f"{self.label}: the bottoms differ; expected shape {bottom[0].shape}, got "
                    f"{blob.shape}; correct the bottoms"
                )
        self.sigma2 = float(self.param.smooth_l1_loss_param.sigma) ** 2
        top[0].reshape(())

    def _weight(self, bottom: Blobs, index: int) -> Any:
        if index >= len(bottom):
            return 1.0
        return bottom[index].data.host().reshape(bottom[0].shape)

    def _difference(self, bottom: Blobs) -> Any:
        second = bottom[1].data.host().reshape(bottom[0].shape)
        return self._weight(bottom, 2) * (bottom[0].data.host() - second)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Sum the losses."""
        size = np.abs(self._difference(bottom))
        squared = 0.5 * self.sigma2 * np.square(size)
        near = size * self.sigma2 < 1
        loss = np.where(near, squared, size - 0.5 / self.sigma2 if self.sigma2 else size)
        total = (loss * self._weight(bottom, 3)).sum()
        top[0].data.mutable_host()[...] = total / bottom[0].shape[0]

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """The slope, with opposite signs for the two sides."""
        difference = self._difference(bottom)
        slope = np.clip(difference * self.sigma2, -1, 1)
        scale = float(top[0].diff.host().ravel()[0]) / bottom[0].shape[0]
        gradient = slope * self._weight(bottom, 2) * self._weight(bottom, 3) * scale
        for sign, blob, down in zip((1, -1), bottom, propagate_down):
            if down:
                blob.diff.mutable_host()[...] = (sign * gradient).reshape(blob.shape)
