"""Error rates against hand-made scores and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError
from runtime.evaluate.metrics import ranks, topk_error


def test_hand_made_scores() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    labels = np.array([1, 2, 0])
    assert ranks(scores, labels).tolist() == [0, 2, 2]
    assert topk_error(scores, labels, 1) == pytest.approx(2 / 3)
    assert topk_error(scores, labels, 2) == pytest.approx(2 / 3)
    assert topk_error(scores, labels, 3) == 0


def test_a_tie_counts_against_the_label() -> None:
    scores = np.full((1, 10), 0.5)
    assert [topk_error(scores, np.array([0]), k) for k in (1, 9, 10)] == [1, 1, 0]


def test_against_sorting() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(200, 12)), rng.integers(0, 12, 200)
    order = np.argsort(-scores, axis=1)
    for k in (1, 5):
        wanted = np.mean([label not in row[:k] for row, label in zip(order, labels)])
        assert topk_error(scores, labels, k) == pytest.approx(wanted)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"error rate: scores \(2, 3\) and labels \(3,\)"):
        topk_error(np.zeros((2, 3)), np.zeros(3, int), 1)


def test_a_true_class_that_scores_nan_is_wrong_for_every_k() -> None:
    scores = np.array([[np.nan, 1, 2], [np.nan, np.nan, np.nan], [np.nan, 1, 0], [np.inf, 1, 0]])
    labels = np.array([0, 1, 1, 0])
    assert (ranks(scores, labels) > 0).tolist() == [True, True, False, False]
    for k in (1, 3, 5):
        assert topk_error(scores, labels, k) == 0.5
