"""MultinomialLogisticLoss: loss of probabilities. Caffe: multinomial_logistic_loss_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.labels import check_labels
from runtime.layers.loss import ClassLossLayer

LOG_THRESHOLD = 1e-20
"""The lower limit of probabilities before the logarithm. Caffe: kLOG_THRESHOLD."""


@register("MultinomialLogisticLoss")
class MultinomialLogisticLossLayer(ClassLossLayer):
    """The mean of -log p(label). SoftmaxWithLoss is numerically more stable.

    Shapes: probabilities (N,C), labels (N,); top scalar.
    """

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the loss from the probability of each label.

        Raises:
            DataError: see check_labels.
        """
        prob = bottom[0].data.host().reshape(bottom[0].shape[0], -1)
        check_labels(bottom[1], prob.shape[1], None, self.label)
        rows = np.arange(len(prob))
        self.labels = bottom[1].data.host().ravel().astype(np.int64)
        self.own = np.maximum(prob[rows, self.labels], LOG_THRESHOLD)
        top[0].data.mutable_host()[...] = -np.log(self.own).sum() / len(prob)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """-1/p at the label, else 0.

        Raises:
            ProtoError: a gradient of the labels is requested.
        """
        self.refuse_label_gradient(propagate_down)
        if propagate_down[0]:
            dx = bottom[0].diff.mutable_host()
            dx[...] = 0
            flat = dx.reshape(dx.shape[0], -1)
            flat[np.arange(len(flat)), self.labels] = (
                -self.loss_weight_of(top) / len(flat) / self.own
            )
