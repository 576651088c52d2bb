"""CenterLoss: distances of features from the centres of their classes.

Source: Wen et al., ECCV 2016; center_loss_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.blob import Blob
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.labels import check_labels
from runtime.layers.loss import LossLayer


@register("CenterLoss")
class CenterLossLayer(LossLayer):
    """Half the squared distance to the centre of the true class, averaged over the samples.

    The gradient of a centre is the sum of its differences divided by one more than their number.

    Shapes: bottoms (N,...) and labels (N,); blobs[0] (classes, features); top scalar.
    """

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill the centres.

        Raises:
            ProtoError: num_output is below 1.
        """
        param = self.param.center_loss_param
        self.classes = int(param.num_output)
        axis = bottom[0].canonical_axis(param.axis, self.label)
        if self.classes < 1 or axis != 1:
            raise ProtoError(
                f"{self.label}: expected num_output of at least 1 and axis 1, got num_output "
                f"{self.classes} and axis {axis}; correct center_loss_param"
            )
        self.blobs = [Blob(self.backend, (self.classes, bottom[0].count(1)), "center")]
        fill_weight(self, 0, param.center_filler)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that there are samples and labels.

        Raises:
            ShapeError: there are no samples, or the numbers of labels or features do not fit.
        """
        self.samples(bottom[0], least=1)
        super().reshape(bottom, top)
        if bottom[0].count(1) != self.blobs[0].shape[1]:
            raise ShapeError(
                f"{self.label}: expected {self.blobs[0].shape[1]} features, as when the net was "
                f"built, got shape {bottom[0].shape}; build a net for this shape"
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Sum the squares."""
        check_labels(bottom[1], self.classes, None, self.label)
        self.true = bottom[1].data.host().ravel().astype(np.int64)
        x = bottom[0].data.host().reshape(len(self.true), bottom[0].count(1))
        self.distance = x - self.blobs[0].data.host()[self.true]
        total = np.square(self.distance, dtype=np.float64).sum()
        top[0].data.mutable_host()[...] = total / (2 * len(self.true))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of the features and of the centres.

        Raises:
            ProtoError: a gradient of the labels is requested.
        """
        self.refuse_label_gradient(propagate_down)
        if self.propagates_to_params(0):
            total = np.zeros_like(self.blobs[0].data.host())
            np.add.at(total, self.true, -self.distance)
            counts = np.bincount(self.true, minlength=self.classes)
            self.blobs[0].diff.mutable_host()[...] += total / (counts[:, None] + 1)
        if propagate_down[0]:
            scale = self.loss_weight_of(top) / len(self.true)
            bottom[0].diff.mutable_host()[...] = (scale * self.distance).reshape(bottom[0].shape)

    @classmethod
    def coupling(cls, param: Any) -> str | None:
        """See Layer."""
        return super().coupling(param) or (
            "divides the gradient of a centre by the number of its samples in the batch"
        )
