"""Filter: select samples of a batch. Caffe: filter_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register


@register("Filter")
class FilterLayer(Layer):
    """Copies the samples whose selector, in the last bottom, is not 0.

    Shapes: bottoms (N, ...), the last one (N,); tops (selected, ...).
    """

    num_bottom, num_top = at_least(2), at_least(1)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check the number of tops.

        Raises:
            ProtoError: there is not one top per bottom except the selector.
        """
        if len(top) != len(bottom) - 1:
            raise ProtoError(
                f"{self.label}: expected {len(bottom) - 1} top(s), one for each bottom except the "
                f"selector, got {len(top)}"
            )
        self.first = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the tops for the selected samples; before the first pass, for all.

        Raises:
            ShapeError: the numbers of samples and selectors differ.
        """
        selector = bottom[-1]
        samples = self.samples(selector)
        if selector.count() != samples:
            raise ShapeError(
                f"{self.label}: expected one selector per sample, got {selector.shape}"
            )
        for blob in bottom[:-1]:
            if self.samples(blob) != samples:
                raise ShapeError(
                    f"{self.label}: {blob.shape[0]} samples and {samples} selectors; "
                    "expected equal numbers"
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
        """Copy the gradients of the selected samples; it is 0 for others.

        Raises:
            ProtoError: a gradient of the selector is requested.
        """
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
