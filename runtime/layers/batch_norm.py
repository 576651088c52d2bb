"""BatchNorm: normalisation of each channel. Caffe: batch_norm_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.base import Array, Function, FunctionKind, Layout
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.folding import ChannelMap, Foldable, FoldedMap, exact_values
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory

POWER = FunctionKind.POWER


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
        self.global_stats: bool = self.phase == proto.TEST
        if param.HasField("use_global_stats"):
            self.global_stats = bool(param.use_global_stats)
        self.samples(bottom[0])
        self.mean, self.variance, self.inverse_std = self._memories(3)
        self.normal, self.part, self.slope_mean, self.slope_along = self._memories(4)
        self.folded = FoldedMap(self.backend)
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

    def _memories(self, count: int) -> list[SyncedMemory]:
        return [SyncedMemory(self.backend) for _ in range(count)]

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
        statistics = self.channel_map()
        for memory in (self.mean, self.inverse_std):
            memory.reshape((self.channels,))
        self.mean.mutable_host()[...] = statistics.centre
        self.inverse_std.mutable_host()[...] = statistics.factor
        self.versions = versions

    @property
    def can_fold(self) -> bool:
        """Whether the statistics are those of the blobs."""
        return self.global_stats

    @property
    def maps_channels(self) -> bool:
        """Whether the statistics are those of the blobs."""
        return self.global_stats

    def channel_map(self) -> ChannelMap:
        """See Layer.channel_map."""
        mean, variance, divisor = (exact_values(blob) for blob in self.blobs)
        factor = 0.0 if divisor[0] == 0 else 1.0 / divisor[0]
        mean, variance = mean * factor, variance * factor
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1.0 / np.sqrt(variance + self.param.batch_norm_param.eps)
        return ChannelMap(mean, inverse, np.zeros_like(mean))

    def forward_folded(
        self, followers: Sequence[Foldable], bottom: Blobs, top: Blobs, relu: bool
    ) -> bool:
        """See Layer.forward_folded."""
        if not self.folded.update([self, *followers]):
            return False
        centre, factor, shift = (memory.dev() for memory in self.folded.memories)
        x, y = bottom[0].data.dev(), top[0].data.mutable_dev()
        affine = self.backend.pointwise.affine
        affine(self._layout(bottom), x, centre, factor, shift, relu, y)
        return True

    def _normalise_batch(self, bottom: Blobs, top: Blobs, *, relu: bool) -> None:
        """Normalise with the statistics of the batch."""
        layout, pointwise = self._layout(bottom), self.backend.pointwise
        count, x = layout.outer * layout.inner, bottom[0].data.dev()
        for memory in (self.mean, self.variance, self.inverse_std):
            memory.reshape((self.channels,))
        self.normal.reshape(bottom[0].shape)
        mean, variance = self.mean.mutable_dev(), self.variance.mutable_dev()
        factor, normal = self.inverse_std.mutable_dev(), self.normal.mutable_dev()
        self._mean_of(layout, x, None, mean)
        pointwise.affine(layout, x, mean, None, None, False, normal)
        self._mean_of(layout, normal, normal, variance)
        inverse_root = Function(POWER, -0.5, 1.0, self.param.batch_norm_param.eps)
        pointwise.function_forward(inverse_root, variance, factor)
        pointwise.affine(layout, normal, None, factor, None, False, normal)
        pointwise.affine(layout, normal, None, None, None, relu, top[0].data.mutable_dev())
        self._update_sums(mean, variance, count)

    def _mean_of(self, layout: Layout, x: Array, y: Array | None, mean: Array) -> None:
        """mean = the mean of x, or of x * y, over outer and inner."""
        self.backend.memory.fill(mean, 0.0)
        if y is None:
            self.backend.products.bias_backward(layout, x, mean)
        else:
            self.backend.pointwise.product_sums(layout, x, y, mean)
        self.backend.vectors.scal(1.0 / (layout.outer * layout.inner), mean)

    def _update_sums(self, mean: Array, variance: Array, count: int) -> None:
        """Add the statistics of a batch of `count` numbers a channel to the running sums."""
        fraction = self.param.batch_norm_param.moving_average_fraction
        unbiased = count / (count - 1) if count > 1 else 1.0
        vectors = self.backend.vectors
        for blob, values, weight in zip(self.blobs, (mean, variance), (1.0, unbiased)):
            sums = blob.data.mutable_dev()
            vectors.scal(fraction, sums)
            vectors.axpy(weight, values, sums)
        divisor = self.blobs[2].data.mutable_dev()
        add_one = Function(POWER, 1.0, fraction, 1.0)
        self.backend.pointwise.function_forward(add_one, divisor, divisor)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradient of the input, also through the statistics of the batch."""
        if not propagate_down[0]:
            return
        layout, pointwise = self._layout(bottom), self.backend.pointwise
        dy, factor = top[0].diff.dev(), self.inverse_std.dev()
        dx = bottom[0].diff.mutable_dev()
        if self.global_stats:
            pointwise.affine(layout, dy, None, factor, None, False, dx)
            return
        for memory in (self.slope_mean, self.slope_along):
            memory.reshape((self.channels,))
        self.part.reshape(bottom[0].shape)
        mean, along = self.slope_mean.mutable_dev(), self.slope_along.mutable_dev()
        normal, part = self.normal.dev(), self.part.mutable_dev()
        self._mean_of(layout, dy, None, mean)
        self._mean_of(layout, normal, dy, along)
        pointwise.affine(layout, normal, None, along, mean, False, part)
        self.backend.vectors.sub(dy, part, dx)
        pointwise.affine(layout, dx, None, factor, None, False, dx)

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
