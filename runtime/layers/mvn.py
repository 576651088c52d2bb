"""MVN: mean and variance normalisation of each sample. Caffe: mvn_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.backend.base import Array
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("MVN")
class MVNLayer(Layer):
    """y = (x - mean) / (std + eps), over each plane or all channels of a sample.

    Shapes: bottom (N,C,H,W) or fewer axes, top (N,C,H,W).
    """

    places = Places.SAME
    only_ops = True

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create the memory that a device uses."""
        self.divisors = SyncedMemory(self.backend)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom, with four axes.

        Raises:
            ShapeError: the bottom has more than 4 axes.
        """
        axes = 1 if self.param.mvn_param.across_channels else 2
        self.rows = bottom[0].count(0, min(axes, bottom[0].num_axes))
        top[0].reshape(bottom[0].legacy_shape(self.label))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Normalise."""
        if not bottom[0].count():
            return
        kernels = self.backend.kernels
        if kernels is not None:
            arrays = (bottom[0].data.dev(), top[0].data.mutable_dev(), self._divisors(write=True))
            args = (*arrays, bottom[0].count() // self.rows)
            eps = float(self.param.mvn_param.eps)
            kernels.run("rows", "mvn_forward", self.rows, (*args, eps))
            return
        x = bottom[0].data.host().reshape(self.rows, -1)
        y: Any = x - x.mean(axis=1, keepdims=True)
        if self.param.mvn_param.normalize_variance:
            self.divisor = np.sqrt(np.square(y).mean(axis=1, keepdims=True))
            self.divisor += self.param.mvn_param.eps
            y /= self.divisor
        top[0].data.mutable_host()[...] = y.reshape(top[0].shape)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradient of the input; the term of the variance is without eps, as in Caffe."""
        if not propagate_down[0] or not bottom[0].count():
            return
        kernels = self.backend.kernels
        if kernels is not None:
            arrays = (top[0].data.dev(), top[0].diff.dev(), self._divisors(write=False))
            args = (*arrays, bottom[0].diff.mutable_dev(), bottom[0].count() // self.rows)
            kernels.run("rows", "mvn_backward", self.rows, args)
            return
        dy = top[0].diff.host().reshape(self.rows, -1)
        dx: Any = dy - dy.mean(axis=1, keepdims=True)
        if self.param.mvn_param.normalize_variance:
            y = top[0].data.host().reshape(self.rows, -1)
            dx = (dx - y * (dy * y).mean(axis=1, keepdims=True)) / self.divisor
        bottom[0].diff.mutable_host()[...] = dx.reshape(bottom[0].shape)

    def _divisors(self, *, write: bool) -> Array | None:
        """The divisor of each row on the device; None without normalize_variance."""
        if not self.param.mvn_param.normalize_variance:
            return None
        self.divisors.reshape((self.rows,))
        return self.divisors.mutable_dev() if write else self.divisors.dev()

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param, shape = self.param.mvn_param, step.bottom[0].shape
        axes = list(range(1 if param.across_channels else 2, len(shape)))
        mean = step.reduce("ReduceMean", step.inputs[0], axes)
        value = step.op("Sub", step.inputs[0], mean)
        if param.normalize_variance:
            variance = step.reduce("ReduceMean", step.op("Mul", value, value), axes)
            deviation = step.affine(step.op("Sqrt", variance), 1.0, float(param.eps))
            value = step.op("Div", value, deviation)
        return [value]
