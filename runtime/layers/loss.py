"""The base class of loss layers. Caffe: loss_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.layer import Blobs, Layer, exactly


class LossLayer(Layer):
    """A scalar loss of predictions and labels; labels have no gradient."""

    num_bottom = exactly(2)
    auto_top_blobs = is_loss = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the batch sizes agree.

        Raises:
            ShapeError: they differ.
        """
        if self.samples(bottom[0]) != self.samples(bottom[1]):
            raise ShapeError(
                f"{self.label}: expected as many labels as samples, got {bottom[1].shape} for "
                f"{bottom[0].shape}"
            )
        top[0].reshape(())

    def loss_weight_of(self, top: Blobs) -> float:
        """The weight of the loss in the total loss, from the top's diff."""
        return float(top[0].diff.host().ravel()[0])

    def refuse_label_gradient(self, propagate_down: Sequence[bool], index: int = 1) -> None:
        """Check that no gradient of the labels is requested.

        Raises:
            ProtoError: it is requested.
        """
        if len(propagate_down) > index and propagate_down[index]:
            raise ProtoError(f"{self.label}: labels have no gradient; set propagate_down: false")


class ClassLossLayer(LossLayer):
    """A loss of the scores of classes, with one class label per sample."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that there is at least one sample, and a label for each.

        Raises:
            ShapeError: the shapes do not agree.
        """
        super().reshape(bottom, top)
        if bottom[1].count() != self.samples(bottom[0], least=1):
            raise ShapeError(
                f"{self.label}: expected one label for each of {bottom[0].shape[0]} samples, got "
                f"labels of shape {bottom[1].shape}; change the labels' shape"
            )
