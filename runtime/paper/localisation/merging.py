"""Greedy merging of the boxes that windows predict. Paper: A.1, after Sermanet et al. (2014).

Their procedure: while the two boxes that match best match well enough, put one in their place that
averages their coordinates; then rate what is left by the class scores of the windows, added up.
Neither paper gives the measure's exact form or its threshold. Here two boxes are as far apart as
the distance of their centres, in mean diagonals, plus 1 minus their intersection over union.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_prep.boxes import Corners
from prototxt_gen.errors import ShapeError
from runtime.paper.localisation.overlap import iou

Scores = npt.NDArray[np.float64]
APART = 0.5
"""Boxes further apart than this are not merged."""


def apart(first: Corners, second: Corners) -> Scores:
    """How far two boxes are apart; 0 for equal ones, more than 1 for disjoint ones.

    Shapes broadcast: (...,4) to (...).
    """
    centres = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2
    diagonals = (_diagonal(first) + _diagonal(second)) / 2
    distance = np.hypot(centres[..., 0], centres[..., 1])
    relative = np.divide(distance, diagonals, out=np.zeros_like(distance), where=diagonals > 0)
    return np.asarray(relative + 1 - iou(first, second))


def merge(boxes: Corners, scores: Scores, most: float = APART) -> tuple[Corners, Scores]:
    """Merge boxes until none are close; the average counts every box it is made of alike.

    Shapes: boxes (n,4), scores (n,); result (m,4), (m,), the best rated first.

    Raises:
        ShapeError: no boxes, or not a score for each.
    """
    if boxes.ndim != 2 or not len(boxes) or scores.shape != boxes.shape[:1]:
        raise ShapeError(
            f"merging: boxes {boxes.shape} and scores {scores.shape}; expected (n,4) and (n,), n "
            "at least 1"
        )
    merged, rating, members = boxes.copy(), scores.astype(np.float64), np.ones(len(boxes))
    far = apart(merged[:, None], merged[None])
    np.fill_diagonal(far, np.inf)
    while len(merged) > 1:
        i, j = sorted(np.unravel_index(int(far.argmin()), far.shape))
        if far[i, j] > most:
            break
        total = members[i] + members[j]
        merged[i] = (members[i] * merged[i] + members[j] * merged[j]) / total
        members[i], rating[i] = total, rating[i] + rating[j]
        merged, rating, members = (np.delete(each, j, axis=0) for each in (merged, rating, members))
        far = np.delete(np.delete(far, j, axis=0), j, axis=1)
        far[i] = far[:, i] = apart(merged[i], merged)
        far[i, i] = np.inf
    order = np.argsort(-rating, kind="stable")
    return merged[order], rating[order]


def _diagonal(boxes: Corners) -> Scores:
    sides = boxes[..., 2:] - boxes[..., :2]
    return np.asarray(np.hypot(sides[..., 0], sides[..., 1]))
