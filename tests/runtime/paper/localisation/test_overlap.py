"""Which boxes are correct, and errors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from prototxt_gen.errors import ShapeError
from runtime.paper.localisation.overlap import (
    area,
    correct_boxes,
    correct_guesses,
    error_of,
    iou,
    is_correct,
)

RNG = np.random.default_rng(11)


def boxes(count: int, side: int = 24) -> np.ndarray:
    """Boxes with whole edges, a pixel wide at least."""
    low = RNG.integers(0, side - 1, (count, 2))
    return np.concatenate([low, RNG.integers(low + 1, side + 1)], axis=1).astype(np.float64)


def painted(box: np.ndarray) -> np.ndarray:
    plane = np.zeros((24, 24), bool)
    x0, y0, x1, y1 = box.astype(int)
    plane[y0:y1, x0:x1] = True
    return plane


def test_iou_is_that_of_the_pixels() -> None:
    first, second = boxes(300), boxes(300)
    found = iou(first, second)
    for a, b, value in zip(first, second, found):
        wanted = jaccard_score(painted(a).ravel(), painted(b).ravel())
        assert value == pytest.approx(wanted, abs=1e-12)
    assert (found > 0).sum() > 50
    np.testing.assert_array_equal(iou(second, first), found)


def test_every_box_with_every_other() -> None:
    first, second = boxes(4), boxes(7)
    table = iou(first[:, None], second)
    assert table.shape == (4, 7)
    assert table[2, 5] == iou(first[2], second[5])
    np.testing.assert_array_equal(iou(first, first), 1)


def test_empty_and_inverted_boxes_overlap_nothing() -> None:
    whole = np.array([0.0, 0, 10, 10])
    empty, inverted = np.array([5.0, 5, 5, 5]), np.array([8.0, 2, 3, 9])
    assert area(inverted) == 0
    for box in (empty, inverted):
        assert iou(box, whole) == 0
        assert iou(box, box) == 0


def test_half_is_not_enough() -> None:
    """ILSVRC requires more than 0.5."""
    true = np.array([[0.0, 0, 10, 10]])
    assert iou(np.array([0.0, 0, 10, 5]), true[0]) == 0.5
    assert not is_correct(np.array([0.0, 0, 10, 5]), true)
    assert is_correct(np.array([0.0, 0, 10, 5.1]), true)


def test_any_object_of_the_class_counts() -> None:
    true = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    assert is_correct(np.array([20.0, 21, 30, 30]), true)
    assert not is_correct(np.array([10.0, 10, 20, 20]), true)


def test_error_given_the_class() -> None:
    true = [boxes(1), boxes(1), boxes(1), boxes(1)]
    found = np.concatenate(true)
    assert error_of(correct_boxes(found, true)) == 0
    found[2] = found[2] + 100
    assert correct_boxes(found, true).tolist() == [True, True, False, True]
    assert error_of(correct_boxes(found, true)) == 0.25


def test_a_guess_needs_class_and_box() -> None:
    true = [np.array([[0.0, 0, 10, 10]])] * 4
    right, wrong = [0.0, 0, 10, 9], [50.0, 50, 60, 60]
    classes = np.array([[3, 1], [3, 1], [1, 3], [5, 1]])
    guesses = np.array([[right, wrong], [wrong, right], [wrong, right], [right, right]])
    labels = np.array([3, 3, 3, 3])
    # Right at first; right box of the wrong class; right at second; class not guessed at all.
    correct = correct_guesses(classes, guesses, labels, true)
    assert correct.tolist() == [True, False, True, False]
    assert error_of(correct) == 0.5
    assert error_of(correct_guesses(classes[:, :1], guesses[:, :1], labels, true)) == 0.75


def test_boxes_of_other_images_are_refused() -> None:
    true = [boxes(1)]
    with pytest.raises(ShapeError) as caught:
        correct_boxes(boxes(2), true)
    assert str(caught.value) == (
        "localisation error: boxes of 2 images, truth of 1; expected the same number, at least 1"
    )
    with pytest.raises(ShapeError, match="boxes of 0 images, truth of 0"):
        correct_guesses(np.empty((0, 5)), np.empty((0, 5, 4)), np.empty(0), [])
