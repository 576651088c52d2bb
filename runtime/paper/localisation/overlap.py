"""When a box is right: its intersection over union with a true one. Paper: A.2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_prep.boxes import Corners
from prototxt_gen.errors import ShapeError

THRESHOLD = 0.5
"""The intersection over union must be above this, as ILSVRC has it."""

Labels = npt.NDArray[np.integer]


def area(boxes: Corners) -> npt.NDArray[np.float64]:
    """Areas of boxes; one turned inside out has none. Shapes: (...,4) to (...)."""
    return np.asarray(np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1))


def iou(first: Corners, second: Corners) -> npt.NDArray[np.float64]:
    """Intersection over union, 0 where both are empty. Shapes broadcast: (...,4) to (...)."""
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    union = area(first) + area(second) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(union), where=union > 0))


def is_right(box: Corners, true: Corners) -> bool:
    """Whether a box overlaps enough with any of the true ones. Shapes: (4,) and (n,4)."""
    return bool((iou(box, true) > THRESHOLD).any())


def box_error(boxes: Corners, true: Sequence[Corners]) -> float:
    """The fraction of images whose box is wrong, the class being given. Shape: boxes (N,4).

    Raises:
        ShapeError: not a box for each image.
    """
    _check(len(boxes), len(true))
    return 1 - sum(is_right(box, each) for box, each in zip(boxes, true)) / len(true)


def top_error(classes: Labels, boxes: Corners, labels: Labels, true: Sequence[Corners]) -> float:
    """The fraction of images none of whose guesses has the right class and a right box.

    Shapes: classes (N,k), boxes (N,k,4), labels (N,).

    Raises:
        ShapeError: not as many guesses as images.
    """
    _check(len(classes), len(true))
    hits = 0
    for guessed, own, label, each in zip(classes, boxes, labels, true):
        hits += any(is_right(box, each) for box in own[guessed == label])
    return 1 - hits / len(true)


def _check(found: int, images: int) -> None:
    if found != images or not images:
        raise ShapeError(
            f"localisation error: boxes of {found} images, truth of {images}; expected equally "
            "many, and some"
        )
