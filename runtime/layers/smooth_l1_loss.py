"""SmoothL1Loss: squared near 0, else linear. Caffe: Fast R-CNN's smooth_L1_loss_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen.errors import ShapeError
from runtime.backend.base import LayerKernels
from runtime.core.layer import Blobs, Layer, between
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("SmoothL1Loss")
class SmoothL1LossLayer(Layer):
    """The sum of outside * f(inside * (a - b)), divided by the number of samples.

    f(d) = 0.5 * sigma^2 * d^2 where |d| < 1 / sigma^2, |d| - 0.5 / sigma^2 elsewhere.

    Shapes: bottoms a, b, and where given the weights inside and outside, alike (N, ...); top
    scalar.
    """

    num_bottom = between(2, 4)
    auto_top_blobs = is_loss = True
    host_only = False

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True except for the weights."""
        return bottom_index < 2

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create the memory that a device uses."""
        self.terms = SyncedMemory(self.backend)

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
        if self.backend.kernels is not None:
            self._forward_on_device(self.backend.kernels, bottom, top)
            return
        size = np.abs(self._difference(bottom))
        squared = 0.5 * self.sigma2 * np.square(size)
        near = size * self.sigma2 < 1
        loss = np.where(near, squared, size - 0.5 / self.sigma2 if self.sigma2 else size)
        total = (loss * self._weight(bottom, 3)).sum()
        top[0].data.mutable_host()[...] = total / bottom[0].shape[0]

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """The slope, with opposite signs for the two sides."""
        if self.backend.kernels is not None:
            self._backward_on_device(self.backend.kernels, top, propagate_down, bottom)
            return
        difference = self._difference(bottom)
        slope = np.clip(difference * self.sigma2, -1, 1)
        scale = float(top[0].diff.host().ravel()[0]) / bottom[0].shape[0]
        gradient = slope * self._weight(bottom, 2) * self._weight(bottom, 3) * scale
        for sign, blob, down in zip((1, -1), bottom, propagate_down):
            if down:
                blob.diff.mutable_host()[...] = (sign * gradient).reshape(blob.shape)

    def _arrays(self, bottom: Blobs) -> list[Any]:
        """The bottoms on the device; None for weights that are not given."""
        arrays = [blob.data.dev() for blob in bottom]
        return arrays + [None] * (4 - len(arrays))

    def _forward_on_device(self, kernels: LayerKernels, bottom: Blobs, top: Blobs) -> None:
        count, vectors = bottom[0].count(), self.backend.vectors
        self.terms.reshape((count,))
        *given, outside = self._arrays(bottom)
        args = (*given, self.terms.mutable_dev(), count, self.sigma2)
        kernels.elementwise("losses", "smooth_l1_terms", count, args)
        terms = self.terms.dev()
        total = vectors.asum(terms) if outside is None else vectors.dot(terms, outside)
        self.backend.memory.fill(top[0].data.mutable_dev(), total / bottom[0].shape[0])

    def _backward_on_device(
        self, kernels: LayerKernels, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs
    ) -> None:
        slopes = [
            blob.diff.mutable_dev() if down else None
            for blob, down in zip(bottom[:2], propagate_down)
        ]
        factor = float(top[0].diff.host().ravel()[0]) / bottom[0].shape[0]
        count = bottom[0].count()
        args = (*self._arrays(bottom), *slopes, count, self.sigma2, factor)
        kernels.elementwise("losses", "smooth_l1_slopes", count, args)
