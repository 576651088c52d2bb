"""EuclideanLoss. Caffe: euclidean_loss_layer.cpp. Paper: A.1 (localisation)."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ShapeError
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("EuclideanLoss")
class EuclideanLossLayer(Layer):
    """Half the mean of squared distances over the batch; both bottoms have gradients.

    Shapes: bottoms of equal shape (N, ...); top scalar.
    """

    num_bottom = exactly(2)
    auto_top_blobs = is_loss = True
    host_only = False

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True for both bottoms."""
        return True

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create the memory of the differences."""
        self.difference = SyncedMemory(self.backend)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the bottoms agree.

        Raises:
            ShapeError: they have different shapes or no samples.
        """
        self.samples(bottom[0], least=1)
        if bottom[0].shape[:1] != bottom[1].shape[:1] or bottom[0].count() != bottom[1].count():
            raise ShapeError(
                f"{self.label}: expected bottoms of equal shape, got {bottom[0].shape} and "
                f"{bottom[1].shape}"
            )
        top[0].reshape(())
        self.difference.reshape(bottom[0].shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the sum of squares / 2N."""
        second = self.backend.memory.view(bottom[1].data.dev(), 0, bottom[0].shape)
        self.backend.vectors.sub(bottom[0].data.dev(), second, self.difference.mutable_dev())
        total = self.backend.vectors.sumsq(self.difference.dev())
        self.backend.memory.fill(top[0].data.mutable_dev(), total / (2 * bottom[0].shape[0]))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """The differences / N, negative for the second bottom."""
        for i, (blob, down) in enumerate(zip(bottom, propagate_down)):
            if down:
                weight = float(top[0].diff.host().ravel()[0]) / blob.shape[0]
                dx = self.backend.memory.view(blob.diff.mutable_dev(), 0, self.difference.shape)
                self.backend.memory.copy(self.difference.dev(), dx)
                self.backend.vectors.scal(-weight if i else weight, dx)
