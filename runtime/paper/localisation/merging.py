"""Greedy merging of the boxes of many windows. Paper: A.1, after Sermanet et al. (2014).

While the closest two boxes are close enough, they are replaced by the average of their coordinates.
The remaining boxes are rated by the sum of the class scores of their windows. Neither paper gives
the exact distance or its threshold. Here the distance of two boxes is the distance of their centres
divided by their mean diagonal, plus 1 minus their intersection over union.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_prep.boxes import Corners
from prototxt_gen.errors import ShapeError
from runtime.paper.localisation.overlap import iou

Scores = npt.NDArray[np.float64]
MERGE_DISTANCE = 0.5
"""Boxes with a larger distance are not merged."""


def box_distance(first: Corners, second: Corners) -> Scores:
    """Return the distance of two boxes: 0 if they are equal, above 1 if they are disjoint.

    Shapes broadcast: (...,4) to (...).
    """
    centres = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2
    diagonals = (_diagonal(first) + _diagonal(second)) / 2
    distance = np.hypot(centres[..., 0], centres[..., 1])
    relative = np.divide(distance, diagonals, out=np.zeros_like(distance), where=diagonals > 0)
    return np.asarray(relative + 1 - iou(first, second))


def merge(
    boxes: Corners, scores: Scores, max_distance: float = MERGE_DISTANCE
) -> tuple[Corners, Scores]:
    """Merge close boxes; a merged box is the mean of its members, with equal weights.

    Shapes: boxes (n,4), scores (n,); result (m,4), (m,), the highest score first.

    Raises:
        ShapeError: there are no boxes, or not as many scores.
    """
    if boxes.ndim != 2 or not len(boxes) or scores.shape != boxes.shape[:1]:
        raise ShapeError(
            f"merging: boxes {boxes.shape} and scores {scores.shape}; expected (n,4) and (n,), n "
            "at least 1"
        )
    merged, rating, members = boxes.copy(), scores.astype(np.float64), np.ones(len(boxes))
    distances = box_distance(merged[:, None], merged[None])
    np.fill_diagonal(distances, np.inf)
    while len(merged) > 1:
        i, j = sorted(np.unravel_index(int(distances.argmin()), distances.shape))
        if distances[i, j] > max_distance:
            break
        total = members[i] + members[j]
        merged[i] = (members[i] * merged[i] + members[j] * merged[j]) / total
        members[i], rating[i] = total, rating[i] + rating[j]
        merged, rating, members = (np.delete(row, j, axis=0) for row in (merged, rating, members))
        distances = np.delete(np.delete(distances, j, axis=0), j, axis=1)
        distances[i] = distances[:, i] = box_distance(merged[i], merged)
        distances[i, i] = np.inf
    order = np.argsort(-rating, kind="stable")
    return merged[order], rating[order]


def _diagonal(boxes: Corners) -> Scores:
    sides = boxes[..., 2:] - boxes[..., :2]
    return np.asarray(np.hypot(sides[..., 0], sides[..., 1]))
