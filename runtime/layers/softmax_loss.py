"""SoftmaxWithLoss: multinomial logistic loss of a soft-max. Caffe: softmax_loss_layer.cpp."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prototxt_gen.errors import ShapeError
from runtime.core.layer import Blobs, between
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory
from runtime.layers.labels import check_label_count, check_labels
from runtime.layers.loss import LossLayer
from runtime.layers.normalization import fixed_normalizer


@register("SoftmaxWithLoss")
class SoftmaxWithLossLayer(LossLayer):
    """The mean of -log p(label); a second top has the probabilities. Paper: 3.1.

    Shapes: bottoms scores (N,C,...) and labels (N,...); tops scalar and (N,C,...).
    """

    reads_scores = True
    only_ops = True

    num_top = between(1, 2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create the memory of the probabilities."""
        param = self.param.loss_param
        self.ignore = int(param.ignore_label) if param.HasField("ignore_label") else None
        self.prob = SyncedMemory(self.backend)
        self.stats = SyncedMemory(self.backend)
        self.stats.reshape((1,))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that there is a label for each position of the scores.

        Raises:
            ShapeError: there are no classes, or the numbers of labels and positions differ.
        """
        self.layout = bottom[0].layout(self.param.softmax_param.axis, self.label)
        if self.layout.channels < 1:
            raise ShapeError(
                f"{self.label}: scores without classes; expected at least 1 along axis "
                f"{self.param.softmax_param.axis}, got shape {bottom[0].shape}; change the input"
            )
        check_label_count(bottom[0], bottom[1], self.layout, self.label)
        top[0].reshape(())
        self.prob.reshape(bottom[0].shape)
        if len(top) == 2:
            top[1].reshape_like(bottom[0])
            top[1].data.share(self.prob)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the probabilities and the loss.

        Raises:
            DataError: see check_labels.
        """
        check_labels(bottom[1], self.layout.channels, self.ignore, self.label)
        self.backend.softmax.forward(self.layout, bottom[0].data.dev(), self.prob.mutable_dev())
        self.backend.softmax.loss_forward(
            self.layout,
            self.prob.dev(),
            bottom[1].data.dev(),
            self.ignore,
            fixed_normalizer(self.param.loss_param, self.layout),
            top[0].data.mutable_dev(),
            self.stats.mutable_dev(),
        )
        if len(top) == 2:
            top[1].data.share(self.prob)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """(prob - onehot) / normalizer.

        Raises:
            ProtoError: a gradient of the labels is requested.
        """
        self.refuse_label_gradient(propagate_down)
        if propagate_down[0]:
            self.backend.softmax.loss_backward(
                self.layout,
                self.prob.dev(),
                bottom[1].data.dev(),
                self.ignore,
                self.loss_weight_of(top),
                self.stats.dev(),
                bottom[0].diff.mutable_dev(),
            )

    def chance_loss(self, bottom: Blobs) -> float:
        """ln(classes)."""
        channels = bottom[0].layout(self.param.softmax_param.axis).channels
        return math.log(max(channels, 1))
