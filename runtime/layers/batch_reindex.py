"""BatchReindex: samples in another order, or repeated. Caffe: batch_reindex_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen.errors import DataError, ProtoError, ShapeError
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register


@register("BatchReindex")
class BatchReindexLayer(Layer):
    """top[i] = bottom[0][index[i]].

    Shapes: bottoms (N,...) and index (M,); top (M,...).
    """

    num_bottom = exactly(2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the number of samples to the number of indices.

        Raises:
            ShapeError: the indices do not have one axis.
        """
        if bottom[1].num_axes != 1:
            raise ShapeError(f"{self.label}: expected indices (M,), got {bottom[1].shape}")
        self.samples(bottom[0])
        top[0].reshape((bottom[1].shape[0], *bottom[0].shape[1:]))

    def _indices(self, bottom: Blobs) -> np.ndarray:
        index = bottom[1].data.host()
        bad = ~((index >= 0) & (index < bottom[0].shape[0]))
        if bad.any():
            raise DataError(
                f"{self.label}: index {index[bad][0]:g}; expected 0 .. {bottom[0].shape[0] - 1}"
            )
        return np.asarray(index.astype(np.int64))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the indexed samples.

        Raises:
            DataError: an index is out of range.
        """
        top[0].data.mutable_host()[...] = bottom[0].data.host()[self._indices(bottom)]

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Add the gradients of all copies of a sample.

        Raises:
            ProtoError: a gradient of the indices is requested.
        """
        if propagate_down[1]:
            raise ProtoError(f"{self.label}: indices have no gradient; set propagate_down: false")
        if propagate_down[0]:
            dx = bottom[0].diff.mutable_host()
            dx[...] = 0
            np.add.at(dx, self._indices(bottom), top[0].diff.host())

    @classmethod
    def coupling(cls, param: Any) -> str:
        return "may mix or drop samples of a batch"
