"""HingeLoss. Caffe: hinge_loss_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen import proto
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.labels import check_labels
from runtime.layers.loss import ClassLossLayer


@register("HingeLoss")
class HingeLossLayer(ClassLossLayer):
    """One-against-all margins max(0, 1 -+ score), by their sum (L1) or sum of squares (L2), / N.

    Shapes: scores (N,C), labels (N,); top scalar.
    """

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the margins of all classes and the loss.

        Raises:
            DataError: see check_labels.
        """
        scores = bottom[0].data.host().reshape(bottom[0].shape[0], -1)
        check_labels(bottom[1], scores.shape[1], None, self.label)
        labels = bottom[1].data.host().ravel().astype(np.int64)
        self.sign = np.ones_like(scores)
        self.sign[np.arange(len(labels)), labels] = -1
        self.margin = np.maximum(0, 1 + self.sign * scores)
        squared = self.param.hinge_loss_param.norm == proto.HingeLossParameter.L2
        total = np.square(self.margin).sum() if squared else self.margin.sum()
        top[0].data.mutable_host()[...] = total / len(labels)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """The sign (L1) or twice the margin (L2), for positive margins.

        Raises:
            ProtoError: a gradient of the labels is requested.
        """
        self.refuse_label_gradient(propagate_down)
        if propagate_down[0]:
            squared = self.param.hinge_loss_param.norm == proto.HingeLossParameter.L2
            slope = 2 * self.margin if squared else np.sign(self.margin)
            slope = slope * self.sign * (self.loss_weight_of(top) / len(slope))
            bottom[0].diff.mutable_host()[...] = slope.reshape(bottom[0].shape)
