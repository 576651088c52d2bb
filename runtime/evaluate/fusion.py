"""Class posteriors of a set of images, averaged over scales, crops and nets. Paper: 4.4"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DataError, ShapeError
from runtime.evaluate.metrics import topk_error


@dataclass(frozen=True, eq=False)
class Posteriors:
    """Shapes: values (N,C), rows with a sum of 1; labels (N,)."""

    values: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.values.shape[1])

    def error(self, k: int) -> float:
        """Return the top-k error as a fraction; k is limited to the number of classes.

        Raises:
            DataError: a label is not a class of the net.
        """
        classes = self.classes
        if self.labels.min() < 0 or self.labels.max() >= classes:
            raise DataError(
                f"labels from {self.labels.min()} to {self.labels.max()} for a net of {classes} "
                f"classes; expected 0 to {classes - 1}; evaluate on the data set it was trained for"
            )
        return topk_error(self.values, self.labels, min(k, classes))

    @property
    def not_finite(self) -> int:
        """The number of images with a posterior of NaN or infinity; they count as correct."""
        return int(np.count_nonzero(~np.isfinite(self.values).all(axis=1)))


def fuse(members: Sequence[Posteriors]) -> Posteriors:
    """Average posteriors of the same images with equal weights.

    Raises:
        ShapeError: there are none, or their images or classes differ.
    """
    if not members:
        raise ShapeError(
            "fuse: nothing to average; expected the posteriors of at least one net, got 0"
        )
    first = members[0]
    for other in members[1:]:
        same = other.values.shape == first.values.shape
        if not same or not np.array_equal(other.labels, first.labels):
            raise ShapeError(
                f"fuse: posteriors of {first.values.shape} and {other.values.shape} (images, "
                "classes) cannot be averaged; expected the same images with the same labels; "
                "evaluate all nets on one source"
            )
    return Posteriors(np.mean([member.values for member in members], axis=0), first.labels)
