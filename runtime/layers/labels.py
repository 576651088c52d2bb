"""Checking labels: one per position of the scores, integers below the number of classes."""

from __future__ import annotations

import numpy as np

from prototxt_gen.errors import DataError, ShapeError
from runtime.backend.base import Layout
from runtime.core.blob import Blob


def check_label_count(scores: Blob, labels: Blob, layout: Layout, name: str) -> None:
    """Check that there is a label for each position of the scores.

    Raises:
        ShapeError: their numbers differ.
    """
    expected = layout.outer * layout.inner
    if labels.count() != expected:
        raise ShapeError(
            f"{name}: expected {expected} labels for scores {scores.shape}, got {labels.count()}; "
            "one label per soft-max, without the class axis"
        )


def check_labels(label: Blob, classes: int, ignore: int | None, name: str) -> None:
    """Check labels before they are used as indices; `ignore` is the ignored label.

    Raises:
        DataError: a label is out of range; the message has the first one and its position.
    """
    values = label.data.host().ravel()
    bad = ~((values >= 0) & (values < classes))
    if ignore is not None:
        bad &= values != ignore
    if bad.any():
        position = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{name}: label {values[position]:g} at position {position} of blob '{label.name}'; "
            f"expected 0 .. {classes - 1}; check the labels, or set num_output to the number of "
            "classes"
        )
