"""InfogainLoss: a soft-max loss weighted by a matrix. Caffe: infogain_loss_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.binaryproto import read_binaryproto
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.base import HostArray
from runtime.core.layer import Blobs, between
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory
from runtime.layers.labels import check_label_count, check_labels
from runtime.layers.loss import LossLayer
from runtime.layers.multinomial_logistic_loss import LOG_THRESHOLD
from runtime.layers.normalization import fixed_normalizer


@register("InfogainLoss")
class InfogainLossLayer(LossLayer):
    """-sum over classes of H[label][c] log p(c); H is the third bottom or a binaryproto file.

    Shapes: scores (N,C,...), labels (N,...), H (..., C, C); tops scalar and probabilities.
    """

    num_bottom, num_top = between(2, 3), between(1, 2)

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True for the scores."""
        return bottom_index == 0

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read H, unless it is a bottom.

        Raises:
            ProtoError: there is neither a third bottom nor a source.
            DataError: the source cannot be read.
        """
        param = self.param.infogain_loss_param
        self.matrix: HostArray | None = None
        if len(bottom) < 3:
            if not param.HasField("source"):
                raise ProtoError(
                    f"{self.label}: no matrix H; expected a third bottom, or source in "
                    "infogain_loss_param"
                )
            self.matrix = read_binaryproto(self.context.path(param.source))
        loss = self.param.loss_param
        self.ignore = int(loss.ignore_label) if loss.HasField("ignore_label") else None
        self.prob = SyncedMemory(self.backend)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check the shapes of labels and H.

        Raises:
            ShapeError: they do not suit the scores.
        """
        self.layout = bottom[0].layout(self.param.infogain_loss_param.axis, self.label)
        classes = self.layout.channels
        check_label_count(bottom[0], bottom[1], self.layout, self.label)
        size = bottom[2].count() if self.matrix is None else self.matrix.size
        if size != classes * classes:
            raise ShapeError(
                f"{self.label}: expected H with {classes}x{classes} elements, got {size}"
            )
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
        layout = self.layout
        check_labels(bottom[1], layout.channels, self.ignore, self.label)
        self.backend.softmax.forward(layout, bottom[0].data.dev(), self.prob.mutable_dev())
        prob = self.prob.host().reshape(layout.outer, layout.channels, layout.inner)
        labels = bottom[1].data.host().reshape(layout.outer, layout.inner).astype(np.int64)
        self.counted = np.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore
        matrix = bottom[2].data.host() if self.matrix is None else self.matrix
        table = np.asarray(matrix).reshape(layout.channels, layout.channels)
        self.rows = np.moveaxis(table[np.where(self.counted, labels, 0)], -1, 1)
        terms = (self.rows * np.log(np.maximum(prob, LOG_THRESHOLD))).sum(axis=1)
        fixed = fixed_normalizer(self.param.loss_param, layout)
        self.normalizer = max(1.0, float(self.counted.sum())) if fixed is None else fixed
        top[0].data.mutable_host()[...] = -terms[self.counted].sum() / self.normalizer
        if len(top) == 2:
            top[1].data.share(self.prob)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """p * sum(H[label]) - H[label].

        Raises:
            ProtoError: a gradient of labels or H is requested.
        """
        self.refuse_label_gradient(propagate_down)
        self.refuse_label_gradient(propagate_down, 2)
        if propagate_down[0]:
            prob = self.prob.host().reshape(self.rows.shape)
            slope = prob * self.rows.sum(axis=1, keepdims=True) - self.rows
            slope *= self.counted[:, None] * (self.loss_weight_of(top) / self.normalizer)
            bottom[0].diff.mutable_host()[...] = slope.reshape(bottom[0].shape)
