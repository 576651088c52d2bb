"""Accuracy. Caffe: accuracy_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.errors import ProtoError
from runtime.core.layer import Blobs, Layer, between, exactly
from runtime.core.layer_registry import register
from runtime.layers.labels import check_label_count, check_labels


@register("Accuracy")
class AccuracyLayer(Layer):
    """The fraction of labels whose score is among the top_k; a second top has it per class.

    Shapes: bottoms scores (N,C,...) and labels (N,...); tops scalar and (C,).
    """

    reads_scores = True

    num_bottom, num_top = exactly(2), between(1, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that there is a label for each position of the scores.

        Raises:
            ShapeError: the numbers of labels and positions differ.
            ProtoError: top_k is larger than the number of classes.
        """
        param = self.param.accuracy_param
        self.host_only = len(top) == 2
        self.layout = bottom[0].layout(param.axis, self.label)
        self.ignore = int(param.ignore_label) if param.HasField("ignore_label") else None
        check_label_count(bottom[0], bottom[1], self.layout, self.label)
        if param.top_k > self.layout.channels:
            raise ProtoError(
                f"{self.label}: top_k is {param.top_k}; expected at most the "
                f"{self.layout.channels} classes"
            )
        top[0].reshape(())
        if len(top) == 2:
            top[1].reshape((self.layout.channels,))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the accuracy.

        Raises:
            DataError: see check_labels.
        """
        check_labels(bottom[1], self.layout.channels, self.ignore, self.label)
        self.backend.softmax.accuracy(
            self.layout,
            bottom[0].data.dev(),
            bottom[1].data.dev(),
            self.ignore,
            int(self.param.accuracy_param.top_k),
            top[0].data.mutable_dev(),
        )
        if len(top) == 2:
            self._per_class(bottom, top)

    def _per_class(self, bottom: Blobs, top: Blobs) -> None:
        layout = self.layout
        scores = bottom[0].data.host().reshape(layout.outer, layout.channels, layout.inner)
        labels = bottom[1].data.host().reshape(layout.outer, layout.inner).astype(np.int64)
        counted = labels != self.ignore if self.ignore is not None else labels == labels
        safe = np.where(counted, labels, 0)
        label_scores = np.take_along_axis(scores, safe[:, None], axis=1)
        hits = (scores >= label_scores).sum(axis=1) - 1 < self.param.accuracy_param.top_k
        totals = np.bincount(labels[counted], minlength=layout.channels)
        correct = np.bincount(labels[counted & hits], minlength=layout.channels)
        top[1].data.mutable_host()[...] = np.where(totals > 0, correct / np.maximum(totals, 1), 0.0)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Raise an error: the accuracy has no gradient.

        Raises:
            ProtoError: a gradient is requested.
        """
        if any(propagate_down):
            raise ProtoError(
                f"{self.label}: has no gradient; remove loss_weight, or set propagate_down: false"
            )
