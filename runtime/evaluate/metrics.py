"""Classification errors. Paper: section 4 (top-1 and top-5 error)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import ShapeError

Scores = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

LAST = np.iinfo(np.int64).max
"""The rank of a true class that scores NaN."""


def ranks(scores: Scores, labels: Labels) -> npt.NDArray[np.int64]:
    """Count the other classes that score at least as much as the true class.

    A tie counts against the true class, as in Caffe's Accuracy. If the true class scores NaN, the
    rank is `LAST`, so that the image is wrong for every k; Caffe's Accuracy counts it as right.

    Shapes: scores (N,C), labels (N,); result (N,).

    Raises:
        ShapeError: the shapes of labels and scores do not fit together.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ShapeError(
            f"error rate: scores {scores.shape} and labels {labels.shape}; expected (N,C) and (N,)"
        )
    own = scores[np.arange(len(labels)), labels]
    above = np.asarray((scores >= own[:, None]).sum(axis=1) - 1, np.int64)
    return np.where(np.isnan(own), LAST, above)


def topk_error(scores: Scores, labels: Labels, k: int) -> float:
    """Return the fraction of samples whose label is not among the k best scores.

    Shapes: scores (N,C), labels (N,).

    Raises:
        ShapeError: the shapes of labels and scores do not fit together.
    """
    return float((ranks(scores, labels) >= k).mean())
