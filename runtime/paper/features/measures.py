"""Average precision by both definitions of PASCAL VOC, and class recall.

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
"""1 for an image of the class, -1 for another image, 0 for one that is ignored."""

ELEVEN_POINTS, ALL_POINTS, RECALL = "11-point AP", "AP", "class recall"


def precision_recall(scores: Scores, targets: Targets) -> tuple[Scores, Scores]:
    """Return precision and recall after each image, in the order of falling scores.

    Images with equal scores keep their order. Ignored images are omitted.

    Shapes: scores (N,), targets (N,); results (n,), n the images that are not ignored.

    Raises:
        DataError: no image belongs to the class.
    """
    counts = targets != 0
    order = np.argsort(-scores[counts], kind="stable")
    hits = np.cumsum(targets[counts][order] > 0)
    if not hits.size or not hits[-1]:
        raise DataError(
            "average precision: no image belongs to the class; expected at least one target of 1; "
            "choose a split whose labels are published"
        )
    return hits / np.arange(1, len(hits) + 1), hits / hits[-1]


def average_precision_11(scores: Scores, targets: Targets) -> float:
    """Return the mean over the recalls 0, 0.1 ... 1 of the best precision at that recall or more.

    VOC's measure until 2009.

    Shapes: scores (N,), targets (N,).

    Raises:
        DataError: no image belongs to the class.
    """
    precision, recall = precision_recall(scores, targets)
    # The tenths of the development kit's 0:0.1:1, without accumulated rounding errors.
    best = [precision[recall >= tenth / 10].max(initial=0.0) for tenth in range(11)]
    return float(np.mean(best))


def average_precision(scores: Scores, targets: Targets) -> float:
    """Return the area under the monotone envelope of precision, over all recalls.

    VOC's measure since 2010.

    Shapes: scores (N,), targets (N,).

    Raises:
        DataError: no image belongs to the class.
    """
    precision, recall = precision_recall(scores, targets)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def class_recall(scores: Scores, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the fraction of each class's images that are classified correctly.

    Shapes: scores (N,C), labels (N,); result (C,).

    Raises:
        DataError: a class has no images.
    """
    counts = confusion_matrix(scores, labels, scores.shape[1])
    empty = np.flatnonzero(counts.sum(axis=1) == 0)
    if empty.size:
        raise DataError(
            f"class recall: class {empty[0]} has no test images; expected at least one of each "
            "class; use fewer training images"
        )
    return np.asarray(counts.diagonal() / counts.sum(axis=1))


def per_class(measure: str, scores: Scores, targets: Targets) -> npt.NDArray[np.float64]:
    """Return a measure of every class.

    Shapes: scores (N,K), targets (N,K); result (K,).

    Raises:
        DataError: a class has no images.
    """
    if measure == RECALL:
        return class_recall(scores, targets.argmax(axis=1))
    ap = average_precision_11 if measure == ELEVEN_POINTS else average_precision
    return np.array([ap(scores[:, k], targets[:, k]) for k in range(targets.shape[1])])
