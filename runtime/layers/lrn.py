"""Local response normalisation. Caffe: lrn_layer.cpp. Paper: 2.1 (net A-LRN)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen import proto
from prototxt_gen.geometry import LRNGeometry, PoolGeometry
from prototxt_gen.geometry_limits import check_extent
from runtime.core.description import OnnxStep, Places, Window
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("LRN")
class LRNLayer(Layer):
    """Divides by sums over neighbouring channels, or over a square (WITHIN_CHANNEL).

    Shapes: bottom, top (N,C,H,W).
    """

    applies_densely = True
    places = Places.SAME
    only_ops = True

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the region."""
        self.within = self.param.lrn_param.norm_region == proto.LRNParameter.WITHIN_CHANNEL
        self.host_only = self.within
        self.scale = SyncedMemory(self.backend)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set top and scale to the shape of the bottom.

        Raises:
            ShapeError: the bottom is not (N,C,H,W), or too small.
            ProtoError: the parameters are out of range.
        """
        self.geom = geom = LRNGeometry.from_param(self.param.lrn_param, bottom[0].shape, self.label)
        size, pad = (geom.size, geom.size), ((geom.size - 1) // 2,) * 2
        if self.within:
            check_extent((geom.h, geom.w), pad, size, self.label)
        self.square = PoolGeometry(geom.n, geom.c, geom.h, geom.w, size, (1, 1), pad)
        top[0].reshape_like(bottom[0])
        self.scale.reshape(bottom[0].shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Normalise."""
        x, y = bottom[0].data, top[0].data
        if self.within:
            self._within_forward(bottom, top)
            return
        self.backend.lrn.forward(self.geom, x.dev(), self.scale.mutable_dev(), y.mutable_dev())

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradient of the input."""
        if not propagate_down[0]:
            return
        if self.within:
            self._within_backward(top, bottom)
            return
        self.backend.lrn.backward(
            self.geom,
            bottom[0].data.dev(),
            top[0].data.dev(),
            self.scale.dev(),
            top[0].diff.dev(),
            bottom[0].diff.mutable_dev(),
        )

    def _within_forward(self, bottom: Blobs, top: Blobs) -> None:
        """y = x * (1 + alpha * mean of x^2)^-beta, with the mean of AVE pooling; k is not used."""
        squares, means = SyncedMemory(self.backend), SyncedMemory(self.backend)
        squares.reshape(bottom[0].shape)
        means.reshape(bottom[0].shape)
        np.square(bottom[0].data.host(), out=squares.mutable_host())
        self.backend.pool.ave_forward(self.square, squares.dev(), means.mutable_dev())
        scale = self.scale.mutable_host()
        np.multiply(means.host(), self.geom.alpha, out=scale)
        scale += 1
        np.multiply(bottom[0].data.host(), scale**-self.geom.beta, out=top[0].data.mutable_host())

    def _within_backward(self, top: Blobs, bottom: Blobs) -> None:
        x, scale, dy = bottom[0].data.host(), self.scale.host(), top[0].diff.host()
        ratio, spread = SyncedMemory(self.backend), SyncedMemory(self.backend)
        ratio.reshape(x.shape)
        spread.reshape(x.shape)
        np.divide(dy * top[0].data.host(), scale, out=ratio.mutable_host())
        self.backend.pool.ave_backward(self.square, ratio.dev(), spread.mutable_dev())
        dx = dy * scale**-self.geom.beta
        dx -= (2 * self.geom.alpha * self.geom.beta) * x * spread.host()
        bottom[0].diff.mutable_host()[...] = dx

    def spatial_window(self) -> Window | None:
        """The square of WITHIN_CHANNEL; None for ACROSS_CHANNELS."""
        return Window(self.square.kernel, pad=self.square.pad) if self.within else None

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param, value = self.param.lrn_param, step.inputs[0]
        size, alpha, beta = int(param.local_size), float(param.alpha), float(param.beta)
        if not self.within:
            return [step.op("LRN", value, size=size, alpha=alpha, beta=beta, bias=float(param.k))]
        mean = step.op(
            "AveragePool",
            step.op("Mul", value, value),
            kernel_shape=(size, size),
            pads=(size // 2,) * 4,
            strides=(1, 1),
            count_include_pad=1,
        )
        power = step.op("Pow", step.affine(mean, alpha, 1.0), step.scalar(beta, "beta"))
        return [step.op("Div", value, power)]
