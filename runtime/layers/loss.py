"""What loss layers have in common. Caffe: loss_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.layer import Blobs, Layer, exactly


class LossLayer(Layer):
    """Predictions and labels in, one number out; labels have no gradient."""

    num_bottom = exactly(2)
    auto_top_blobs = is_loss = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the batch sizes agree."""
        if self.samples(bottom[0]) != self.samples(bottom[1]):
            raise ShapeError(
                f"{self.label}: expected as many labels as samples, got {bottom[1].shape} for "
                f"{bottom[0].shape}"
            )
        top[0].reshape(())

    def loss_weight_of(self, top: Blobs) -> float:
        """What the loss counts in the whole: backward's seed."""
        return float(top[0].diff.host().ravel()[0])

    def refuse_label_gradient(self, propagate_down: Sequence[bool], index: int = 1) -> None:
        """Raise ProtoError where a gradient of the labels is asked for."""
        if len(propagate_down) > index and propagate_down[index]:
            raise ProtoError(f"{self.label}: labels have no gradient; set propagate_down: false")
