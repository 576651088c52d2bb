"""SigmoidCrossEntropyLoss. Caffe: sigmoid_cross_entropy_loss_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ShapeError
from runtime.backend.base import LayerKernels, Layout
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory
from runtime.layers.loss import LossLayer
from runtime.layers.normalization import fixed_normalizer


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLossLayer(LossLayer):
    """-sum of t log s(x) + (1-t) log(1-s(x)), by default divided by the batch size.

    Shapes: scores (N,...), targets in 0..1 of equal count; top scalar.
    """

    host_only = False

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create the memory that a device uses."""
        self.terms, self.ones = SyncedMemory(self.backend), SyncedMemory(self.backend)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check the shapes of the targets.

        Raises:
            ShapeError: there is not one target per score.
        """
        super().reshape(bottom, top)
        if bottom[0].count() != bottom[1].count():
            raise ShapeError(
                f"{self.label}: expected a target for every score, got {bottom[1].shape} for "
                f"{bottom[0].shape}"
            )
        param = self.param.loss_param
        self.ignore = int(param.ignore_label) if param.HasField("ignore_label") else None
        layout = Layout(bottom[0].shape[0], 1, bottom[0].count(1))
        # Unlike for other losses, the default normalization is BATCH_SIZE.
        self.fixed = fixed_normalizer(param, layout, proto.LossParameter.BATCH_SIZE)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the loss in a form that does not overflow."""
        if self.backend.kernels is not None:
            self._forward_on_device(self.backend.kernels, bottom, top)
            return
        x = bottom[0].data.host().ravel()
        t = bottom[1].data.host().ravel()
        counted = np.ones(x.shape, bool) if self.ignore is None else t.astype(int) != self.ignore
        terms = x * (t - (x >= 0)) - np.log1p(np.exp(x - 2 * x * (x >= 0)))
        self.counted = counted
        self.normalizer = max(1.0, float(counted.sum())) if self.fixed is None else self.fixed
        top[0].data.mutable_host()[...] = -terms[counted].sum() / self.normalizer

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """s(x) - t.

        Raises:
            ProtoError: a gradient of the targets is requested.
        """
        self.refuse_label_gradient(propagate_down)
        if propagate_down[0] and self.backend.kernels is not None:
            arrays = (bottom[0].data.dev(), bottom[1].data.dev(), self.ones.dev())
            factor = self.loss_weight_of(top) / self.normalizer
            count = bottom[0].count()
            args = (*arrays, bottom[0].diff.mutable_dev(), count, factor)
            self.backend.kernels.elementwise("losses", "sigmoid_loss_slopes", count, args)
        elif propagate_down[0]:
            x = bottom[0].data.host().ravel()
            slope = 0.5 * np.tanh(0.5 * x) + 0.5 - bottom[1].data.host().ravel()
            slope *= self.counted * (self.loss_weight_of(top) / self.normalizer)
            bottom[0].diff.mutable_host()[...] = slope.reshape(bottom[0].shape)

    def _forward_on_device(self, kernels: LayerKernels, bottom: Blobs, top: Blobs) -> None:
        count, vectors = bottom[0].count(), self.backend.vectors
        for memory in (self.terms, self.ones):
            memory.reshape((count,))
        arrays = (bottom[0].data.dev(), bottom[1].data.dev())
        results = (self.terms.mutable_dev(), self.ones.mutable_dev())
        ignores = int(self.ignore is not None), self.ignore or 0
        kernels.elementwise(
            "losses", "sigmoid_loss_terms", count, (*arrays, *results, count, *ignores)
        )
        total = vectors.dot(self.terms.dev(), self.ones.dev())
        self.normalizer = (
            max(1.0, vectors.asum(self.ones.dev())) if self.fixed is None else self.fixed
        )
        self.backend.memory.fill(top[0].data.mutable_dev(), total / self.normalizer)
