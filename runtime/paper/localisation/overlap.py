"""Which boxes are correct, by their intersection over union with true boxes. Paper: A.2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_prep.boxes import Corners
from prototxt_gen.errors import ShapeError

THRESHOLD = 0.5
"""The intersection over union of a correct box is above this, as in ILSVRC."""

Labels = npt.NDArray[np.integer]
Correct = npt.NDArray[np.bool_]


def area(boxes: Corners) -> npt.NDArray[np.float64]:
    """Return the areas of boxes, 0 if right is left of left. Shapes: (...,4) to (...)."""
    return np.asarray(np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1))


def iou(first: Corners, second: Corners) -> npt.NDArray[np.float64]:
    """Return the intersection over union, 0 if both boxes are empty.

    Shapes broadcast: (...,4) to (...).
    """
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    union = area(first) + area(second) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(union), where=union > 0))


def is_correct(box: Corners, true: Corners) -> bool:
    """Whether a box overlaps enough with any of the true ones. Shapes: (4,) and (n,4)."""
    return bool((iou(box, true) > THRESHOLD).any())


def correct_boxes(boxes: Corners, true: Sequence[Corners]) -> Correct:
    """Return which images have a correct box, given their class.

    Shapes: boxes (N,4), each of `true` (n,4); result (N,).

    Raises:
        ShapeError: the numbers of boxes and images differ, or are 0.
    """
    _check(len(boxes), len(true))
    return np.array([is_correct(box, own) for box, own in zip(boxes, true)])


def correct_guesses(
    classes: Labels, boxes: Corners, labels: Labels, true: Sequence[Corners]
) -> Correct:
    """Return which images have a guess with the correct class and a correct box.

    Shapes: classes (N,k), boxes (N,k,4), labels (N,), each of `true` (n,4); result (N,).

    Raises:
        ShapeError: the numbers of guesses and images differ, or are 0.
    """
    _check(len(classes), len(true))
    return np.array(
        [
            any(is_correct(box, own) for box in guessed_boxes[guessed == label])
            for guessed, guessed_boxes, label, own in zip(classes, boxes, labels, true)
        ]
    )


def error_of(correct: Correct) -> float:
    """Return the fraction of images that are not correct. Shapes: correct (N,)."""
    return 1 - int(correct.sum()) / len(correct)


def _check(predicted: int, images: int) -> None:
    if predicted != images or not images:
        raise ShapeError(
            f"localisation error: boxes of {predicted} images, truth of {images}; expected the "
            "same number, at least 1"
        )
