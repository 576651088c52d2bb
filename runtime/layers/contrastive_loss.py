"""ContrastiveLoss for siamese nets. Caffe: contrastive_loss_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.errors import ShapeError
from runtime.core.layer import Blobs, exactly
from runtime.core.layer_registry import register
from runtime.layers.loss import LossLayer


@register("ContrastiveLoss")
class ContrastiveLossLayer(LossLayer):
    """Sum of d^2 for similar pairs, max(0, margin - d)^2 (legacy: margin - d^2) for others, / 2N.

    Shapes: features a and b (N,C), similar (N,) of 0 and 1; top scalar.
    """

    num_bottom = exactly(3)

    def allow_force_backward(self, bottom_index: int) -> bool:
        """Both features have a gradient."""
        return bottom_index != 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check the shapes of the pairs.

        Raises:
            ShapeError: they do not agree.
        """
        a, b, similar = bottom
        self.samples(a, least=1)
        if a.count() != b.count() or a.shape[:1] != b.shape[:1]:
            raise ShapeError(
                f"{self.label}: expected features of equal shape, got {a.shape} and {b.shape}"
            )
        if similar.count() != a.shape[0]:
            raise ShapeError(
                f"{self.label}: expected {a.shape[0]} similarities, got {similar.shape}"
            )
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the distances and the loss."""
        param = self.param.contrastive_loss_param
        rows = bottom[0].shape[0]
        a, b = (blob.data.host().reshape(rows, -1) for blob in bottom[:2])
        self.difference = a - b
        self.squared = np.square(self.difference).sum(axis=1)
        self.similar = bottom[2].data.host().ravel().astype(np.int64) != 0
        if param.legacy_version:
            apart = np.maximum(param.margin - self.squared, 0)
        else:
            apart = np.square(np.maximum(param.margin - np.sqrt(self.squared), 0))
        loss = np.where(self.similar, self.squared, apart).sum() / (2 * rows)
        top[0].data.mutable_host()[...] = loss

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of both features.

        Raises:
            ProtoError: a gradient of the similarities is requested.
        """
        self.refuse_label_gradient(propagate_down, 2)
        param = self.param.contrastive_loss_param
        if param.legacy_version:
            push = np.where(param.margin - self.squared > 0, -1.0, 0.0)
        else:
            distance = np.sqrt(self.squared)
            gap = param.margin - distance
            push = np.where(gap > 0, -gap / (distance + 1e-4), 0.0)
        weight = np.where(self.similar, 1.0, push) * (self.loss_weight_of(top) / bottom[0].shape[0])
        for i in range(2):
            if propagate_down[i]:
                slope = (1 - 2 * i) * weight[:, None] * self.difference
                bottom[i].diff.mutable_host()[...] = slope.reshape(bottom[i].shape)
