"""Greedy merging of cases with known results."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError
from runtime.paper.localisation.merging import box_distance, merge

RNG = np.random.default_rng(2)


def test_distances_of_boxes() -> None:
    box = np.array([0.0, 0, 30, 40])
    assert box_distance(box, box) == 0
    # Half a diagonal (25 of 50) between the centres; nothing in common but an edge's corner.
    assert box_distance(box, box + [15, 20, 15, 20]) == pytest.approx(0.5 + 1 - 300 / 2100)
    far = box + [300, 0, 300, 0]
    assert box_distance(box, far) == pytest.approx(300 / 50 + 1)
    assert box_distance(far, box) == box_distance(box, far)


def test_one_box_stays_as_it_is() -> None:
    boxes, scores = merge(np.array([[1.0, 2, 3, 4]]), np.array([0.25]))
    assert boxes.tolist() == [[1, 2, 3, 4]]
    assert scores.tolist() == [0.25]


def test_two_clusters_become_their_means() -> None:
    """Three boxes about one object, two about another; the scores of each add up."""
    first = np.array([[10.0, 10, 30, 30], [12, 10, 32, 30], [10, 13, 30, 33]])
    second = np.array([[70.0, 70, 90, 94], [72, 70, 92, 94]])
    boxes, scores = merge(np.concatenate([first, second]), np.array([0.1, 0.2, 0.1, 0.5, 0.3]))
    np.testing.assert_allclose(boxes, [second.mean(axis=0), first.mean(axis=0)])
    np.testing.assert_allclose(scores, [0.8, 0.4])


def test_a_crowd_outvotes_a_single_better_score() -> None:
    crowd = np.array([[10.0, 10, 30, 30]] * 3)
    boxes, scores = merge(
        np.concatenate([[[60.0, 60, 90, 90]], crowd]), np.array([0.9, *[0.4] * 3])
    )
    assert boxes.tolist() == [[10, 10, 30, 30], [60, 60, 90, 90]]
    np.testing.assert_allclose(scores, [1.2, 0.9])


def test_the_bound_decides_what_is_merged() -> None:
    boxes, scores = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10]]), np.array([1.0, 2.0])
    distance = float(box_distance(boxes[0], boxes[1]))
    assert len(merge(boxes, scores, distance - 1e-9)[0]) == 2
    assert merge(boxes, scores, distance + 1e-9)[0].tolist() == [[2.5, 0, 12.5, 10]]


def test_nothing_is_lost() -> None:
    """Scores add up, the members' mean is kept, and no two boxes that are left are close."""
    for _ in range(20):
        low = RNG.uniform(0, 60, (12, 2))
        boxes = np.concatenate([low, low + RNG.uniform(10, 40, (12, 2))], axis=1)
        scores = RNG.uniform(0, 1, 12)
        merged, rating = merge(boxes, scores)
        assert rating.sum() == pytest.approx(scores.sum())
        assert (np.diff(rating) <= 0).all()
        distances = box_distance(merged[:, None], merged) + np.eye(len(merged)) * 9
        assert distances.min() > 0.5
        assert (merged.min(axis=0) >= boxes.min(axis=0)).all()
        order = RNG.permutation(12)
        again, _ = merge(boxes[order], scores[order])
        np.testing.assert_allclose(again, merged, atol=1e-9)


def test_with_a_bound_of_everything_the_mean_of_all_is_left() -> None:
    boxes = RNG.uniform(0, 50, (9, 4))
    merged, rating = merge(boxes, np.ones(9), np.inf)
    np.testing.assert_allclose(merged, boxes.mean(axis=0)[None])
    assert rating.tolist() == [9]


@pytest.mark.parametrize(
    ("boxes", "scores"), [((0, 4), (0,)), ((3, 4), (2,)), ((4,), (1,))], ids=str
)
def test_input_that_cannot_be_merged(boxes: tuple[int, ...], scores: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        merge(np.zeros(boxes), np.zeros(scores))
    assert str(caught.value) == (
        f"merging: boxes {boxes} and scores {scores}; expected (n,4) and (n,), n at least 1"
    )
