"""Average precision as PASCAL VOC defines it, in both its ways, and mean class recall.

Paper: appendix B.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DataError
from runtime.evaluate.confusion import confusion_matrix

Scores = npt.NDArray[np.floating[Any]]
Targets = npt.NDArray[np.int8]
"""1 for an image of the class, -1 for another, 0 for one that does not count."""

ELEVEN_POINTS, ALL_POINTS, RECALL = "11-point AP", "AP", "class recall"


def precision_recall(scores: Scores, targets: Targets) -> tuple[Scores, Scores]:
    """Precision and recall after each image, best score first; equal scores in the order given.

    Raises:
        DataError: no image is of the class.
    """
    counts = targets != 0
    order = np.argsort(-scores[counts], kind="stable")
    hits = np.cumsum(targets[counts][order] > 0)
    if not hits.size or not hits[-1]:
        raise DataError(
            "average precision: no image is of the class; expected at least one target of 1; "
            "choose a split whose labels are published"
        )
    return hits / np.arange(1, len(hits) + 1), hits / hits[-1]


def average_precision_11(scores: Scores, targets: Targets) -> float:
    """The mean, over the recalls 0, 0.1 ... 1, of the best precision at that recall or beyond.

    VOC's measure until 2009. Shapes: (N,), (N,).
    """
    precision, recall = precision_recall(scores, targets)
    # The same tenths as the development kit's 0:0.1:1, without the rounding of repeated sums.
    best = [precision[recall >= tenth / 10].max(initial=0.0) for tenth in range(11)]
    return float(np.mean(best))


def average_precision(scores: Scores, targets: Targets) -> float:
    """The area under precision made monotone, over all recalls.

    VOC's measure from 2010 on. Shapes: (N,), (N,).
    """
    precision, recall = precision_recall(scores, targets)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def class_recall(scores: Scores, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """For each class, the part of its images whose best score is its own. Shapes: (N,C), (N,).

    Raises:
        DataError: a class has no images.
    """
    counts = confusion_matrix(scores, labels, scores.shape[1])
    empty = np.flatnonzero(counts.sum(axis=1) == 0)
    if empty.size:
        raise DataError(
            f"class recall: class {empty[0]} has no test images; expected at least one of each "
            "class; train on fewer of them"
        )
    return np.asarray(counts.diagonal() / counts.sum(axis=1))


def per_class(measure: str, scores: Scores, targets: Targets) -> npt.NDArray[np.float64]:
    """A measure of every class. Shapes: (N,K), (N,K); result (K,)."""
    if measure == RECALL:
        return class_recall(scores, targets.argmax(axis=1))
    ap = average_precision_11 if measure == ELEVEN_POINTS else average_precision
    return np.array([ap(scores[:, k], targets[:, k]) for k in range(targets.shape[1])])
