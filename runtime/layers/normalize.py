"""Normalize: divide by the L2 norm and multiply by a scale. Caffe: SSD's normalize_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ShapeError
from prototxt_gen.geometry_limits import image_shape
from runtime.backend.base import LayerKernels, Layout
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("Normalize")
class NormalizeLayer(Layer):
    """y = scale * x / sqrt(sum of x^2 + eps), the sum over the item or over the channels.

    Shapes: bottom (N,C,H,W); blobs[0] (), or (C,) without channel_shared.
    """

    in_place = False
    only_ops = True
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
        self.host_only = bool(param.across_spatial)
        self.norms, self.share = SyncedMemory(self.backend), SyncedMemory(self.backend)

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
        kernels = None if self.host_only else self.backend.kernels
        if kernels is not None:
            n, _, h, w = bottom[0].shape
            self.norms.reshape((n, h, w))
            arrays = (bottom[0].data.dev(), self.blobs[0].data.dev(), self.norms.mutable_dev())
            eps = float(self.param.norm_param.eps)
            args = (*arrays, top[0].data.mutable_dev(), n * h * w, *self._sizes(bottom), eps)
            self._launch(kernels, "normalize_forward", bottom, args)
            return
        x = bottom[0].data.host()
        total = np.square(x).sum(axis=self.axes, keepdims=True)
        self.norm = np.sqrt(total + self.param.norm_param.eps)
        top[0].data.mutable_host()[...] = x / self.norm * self._scale()

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of the scale and of the input, through the norm."""
        kernels = None if self.host_only else self.backend.kernels
        if kernels is not None:
            self._backward_on_device(kernels, top, propagate_down[0], bottom)
            return
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

    def _backward_on_device(
        self, kernels: LayerKernels, top: Blobs, propagate_down: bool, bottom: Blobs
    ) -> None:
        scale = self.blobs[0]
        learns = self.propagates_to_params(0)
        if not (learns or propagate_down):
            return
        self.share.reshape(bottom[0].shape)
        args = (
            bottom[0].data.dev(),
            self.norms.dev(),
            scale.data.dev(),
            top[0].diff.dev(),
            bottom[0].diff.mutable_dev() if propagate_down else None,
            self.share.mutable_dev() if learns else None,
            self.norms.count,
            *self._sizes(bottom),
        )
        self._launch(kernels, "normalize_backward", bottom, args)
        if learns:
            n, c, h, w = bottom[0].shape
            layout = Layout(n, c, h * w) if scale.num_axes else Layout(1, 1, n * c * h * w)
            self.backend.products.bias_backward(layout, self.share.dev(), scale.diff.mutable_dev())

    def _sizes(self, bottom: Blobs) -> tuple[int, int, int]:
        """Channels, positions of a plane, and the distance between the scales of channels."""
        _, c, h, w = bottom[0].shape
        return c, h * w, int(self.blobs[0].num_axes > 0)

    def _launch(self, kernels: LayerKernels, name: str, bottom: Blobs, args: Any) -> None:
        """A thread per position."""
        n, _, h, w = bottom[0].shape
        kernels.elementwise("normalize", name, n * h * w, args, per_thread=1)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        value = step.inputs[0]
        square = step.op("Mul", value, value)
        total = step.reduce("ReduceSum", square, self.axes)
        norm = step.op("Sqrt", step.affine(total, 1.0, float(self.param.norm_param.eps)))
        unit = step.op("Div", value, norm)
        return [step.op("Mul", unit, step.weight(0, (1, self.blobs[0].count(), 1, 1)))]
