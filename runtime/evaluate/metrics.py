"""Classification errors. Paper: section 4 (top-1 and top-5 error)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import ShapeError

Scores = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]


def ranks(scores: Scores, labels: Labels) -> npt.NDArray[np.int64]:
    """How many other classes score at least as much as the right one; 0 is a clear hit.

    A tie counts against the label, as in Caffe's Accuracy.

    Shapes: scores (N,C), labels (N,); result (N,).

    Raises:
        ShapeError: labels and scores do not fit together.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ShapeError(
            f"error rate: scores {scores.shape} and labels {labels.shape}; expected (N,C) and (N,)"
        )
    own = scores[np.arange(len(labels)), labels]
    return np.asarray((scores >= own[:, None]).sum(axis=1) - 1, np.int64)


def topk_error(scores: Scores, labels: Labels, k: int) -> float:
    """The fraction of samples whose label is not among the k best; k is at most the classes."""
    return float((ranks(scores, labels) >= k).mean())


def confusion(scores: Scores, labels: Labels) -> npt.NDArray[np.int64]:
    """Counts of (right class, predicted class). Shape (C,C)."""
    classes = scores.shape[1]
    pairs = labels.astype(np.int64) * classes + scores.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
