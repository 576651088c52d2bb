"""BatchNorm: normalisation of each channel. Caffe: batch_norm_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.base import HostArray, Layout
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("BatchNorm")
class BatchNormLayer(Layer):
    """y = (x - mean) / sqrt(var + eps), without scale and shift. May work in place.

    TRAIN uses the mean and variance of the batch, TEST the running sums in the blobs.

    Shapes: bottom (N,C,...); blobs mean (C,), variance (C,), and (1,) that both are divided by.
    """

    applies_densely = True
    places = Places.SAME
    only_ops = True
    can_rectify = True

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create the running sums, which the solver must not change.

        Raises:
            ProtoError: a param has a lr_mult other than 0.
        """
        param = self.param.batch_norm_param
        self.global_stats = self.phase == proto.TEST
        if param.HasField("use_global_stats"):
            self.global_stats = bool(param.use_global_stats)
        self.samples(bottom[0])
        self.mean, self.inverse_std = SyncedMemory(self.backend), SyncedMemory(self.backend)
        self.versions: tuple[int | None, ...] = ()
        """The versions of the blobs from which mean and inverse_std were computed."""
        channels = 1 if bottom[0].num_axes == 1 else bottom[0].shape[1]
        shapes = ((channels,), (channels,), (1,))
        self.blobs = [Blob(self.backend, shape, "statistics") for shape in shapes]
        for i, _ in enumerate(self.blobs):
            if i == len(self.param.param):
                self.param.param.add().lr_mult = 0.0
            elif self.param.param[i].lr_mult != 0.0:
                raise ProtoError(
                    f"{self.label}: param {i} has lr_mult {self.param.param[i].lr_mult:g}; "
                    "expected 0, since statistics are not learnt; remove the param entries"
                )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom.

        Raises:
            ShapeError: the number of channels has changed, or a batch is empty.
        """
        self.channels = self.blobs[0].count()
        channels = bottom[0].shape[1] if bottom[0].num_axes > 1 else 1
        if channels != self.channels:
            raise ShapeError(
                f"{self.label}: expected {self.channels} channels as when the net was built, got "
                f"shape {bottom[0].shape}"
            )
        if not bottom[0].count() and not self.global_stats:
            raise ShapeError(
                f"{self.label}: no elements to compute mean and variance; expected at least one "
                f"for each channel, got shape {bottom[0].shape}; use a batch that is not empty"
            )
        top[0].reshape_like(bottom[0])

    def _layout(self, bottom: Blobs) -> Layout:
        """The layout (N,C,rest) of the bottom."""
        images = 1 if bottom[0].num_axes == 1 else bottom[0].shape[0]
        inner = bottom[0].count() // max(1, images * self.channels)
        return Layout(images, self.channels, inner)

    def _planes(self, bottom: Blobs, x: HostArray) -> Any:
        layout = self._layout(bottom)
        return x.reshape(layout.outer, layout.channels, layout.inner)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Normalise; with the statistics of the batch, also update the running sums."""
        self._normalise(bottom, top, relu=False)

    def forward_relu(self, bottom: Blobs, top: Blobs) -> None:
        """Normalise and apply a ReLU."""
        self._normalise(bottom, top, relu=True)

    def _normalise(self, bottom: Blobs, top: Blobs, *, relu: bool) -> None:
        if not self.global_stats:
            self._normalise_batch(bottom, top, relu=relu)
            return
        self._read_statistics()
        x, y = bottom[0].data.dev(), top[0].data.mutable_dev()
        mean, factor = self.mean.dev(), self.inverse_std.dev()
        affine = self.backend.pointwise.affine
        affine(self._layout(bottom), x, mean, factor, None, relu, y)

    def _read_statistics(self) -> None:
        """Compute mean and 1 / sqrt(variance + eps) if the blobs may have changed."""
        versions = tuple(blob.data.version for blob in self.blobs)
        if versions == self.versions and None not in versions:
            return
        divisor = float(self.blobs[2].data.host().ravel()[0])
        factor = 0.0 if divisor == 0 else 1.0 / divisor
        variance = self.blobs[1].data.host() * np.float64(factor)
        for memory in (self.mean, self.inverse_std):
            memory.reshape((self.channels,))
        self.mean.mutable_host()[...] = self.blobs[0].data.host() * np.float64(factor)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1.0 / np.sqrt(variance + self.param.batch_norm_param.eps)
        self.inverse_std.mutable_host()[...] = inverse
        self.versions = versions

    def _normalise_batch(self, bottom: Blobs, top: Blobs, *, relu: bool) -> None:
        """Normalise with the statistics of the batch, on the host."""
        x = self._planes(bottom, bottom[0].data.host())
        mean = x.mean(axis=(0, 2))
        centred = x - mean[None, :, None]
        var = np.square(centred).mean(axis=(0, 2))
        self._update_sums(mean, var, x.size // self.channels)
        self.std = np.sqrt(var + self.param.batch_norm_param.eps)
        self.normal = centred / self.std[None, :, None]
        y = top[0].data.mutable_host()
        y[...] = self.normal.reshape(y.shape)
        if relu:
            np.maximum(y, 0, out=y)

    def _update_sums(self, mean: HostArray, var: HostArray, count: int) -> None:
        fraction = self.param.batch_norm_param.moving_average_fraction
        unbiased = count / (count - 1) if count > 1 else 1.0
        for blob, fresh in zip(self.blobs, (mean, unbiased * var, 1.0)):
            sums = blob.data.mutable_host()
            sums[...] = sums * fraction + fresh

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradient of the input, also through the statistics of the batch."""
        if not propagate_down[0]:
            return
        if self.global_stats:
            dy, dx = top[0].diff.dev(), bottom[0].diff.mutable_dev()
            factor, affine = self.inverse_std.dev(), self.backend.pointwise.affine
            affine(self._layout(bottom), dy, None, factor, None, False, dx)
            return
        slope = self._planes(bottom, top[0].diff.host())
        along = (slope * self.normal).mean(axis=(0, 2))[None, :, None]
        result = slope - slope.mean(axis=(0, 2))[None, :, None] - self.normal * along
        result /= self.std[None, :, None]
        out = bottom[0].diff.mutable_host()
        out[...] = result.reshape(out.shape)

    @classmethod
    def coupling(cls, param: Any) -> str | None:
        """A reason, if the statistics are those of the batch."""
        if param.batch_norm_param.use_global_stats:
            return None
        return "computes statistics over its batch"

    def to_onnx(self, step: OnnxStep) -> list[str]:
        """See Layer.to_onnx.

        Raises:
            UnsupportedError: the layer uses the statistics of the batch.
        """
        if not self.global_stats:
            raise step.refuse("use_global_stats: false")
        mean, variance, divisor = (blob.data.host() for blob in self.blobs)
        factor = 0.0 if divisor.ravel()[0] == 0 else 1.0 / float(divisor.ravel()[0])
        value = step.op(
            "BatchNormalization",
            step.inputs[0],
            step.constant(np.ones(mean.size, np.float32), "scale"),
            step.constant(np.zeros(mean.size, np.float32), "shift"),
            step.constant(mean * factor, "mean"),
            step.constant(variance * factor, "variance"),
            epsilon=float(self.param.batch_norm_param.eps),
        )
        return [value]
