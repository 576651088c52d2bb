"""Filter: keep the samples that a selector marks. Caffe: filter_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register


@register("Filter")
class FilterLayer(Layer):
    """The last bottom is the selector (N,) of 0 and 1; the tops are the other bottoms, filtered."""

    num_bottom, num_top = at_least(2), at_least(1)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check tops against bottoms."""
        if len(top) != len(bottom) - 1:
            raise ProtoError(
                f"{self.label}: expected {len(bottom) - 1} top(s), one for each bottom but the "
                f"selector, got {len(top)}"
            )
        self.first = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """As many samples as are selected; before the first pass, all."""
        selector = bottom[-1]
        samples = self.samples(selector)
        if selector.count() != samples:
            raise ShapeError(
                f"{self.label}: expected a selector of one number a sample, got {selector.shape}"
            )
        for blob in bottom[:-1]:
            if self.samples(blob) != samples:
                raise ShapeError(
                    f"{self.label}: {blob.shape[0]} samples and {samples} selectors; "
                    "expected equally many"
                )
        self.kept = np.flatnonzero(selector.data.host().ravel())
        count = samples if self.first else self.kept.size
        self.first = False
        for blob, out in zip(bottom, top):
            out.reshape((count, *blob.shape[1:]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the selected samples."""
        for blob, out in zip(bottom, top):
            out.data.mutable_host()[...] = blob.data.host()[self.kept]

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Zero where nothing was selected."""
        if propagate_down[-1]:
            raise ProtoError(f"{self.label}: the selector has no gradient")
        for blob, out, down in zip(bottom, top, propagate_down):
            if down:
                dx = blob.diff.mutable_host()
                dx[...] = 0
                dx[self.kept] = out.diff.host()

    @classmethod
    def coupling(cls, param: Any) -> str:
        return "may mix or drop samples of a batch"
