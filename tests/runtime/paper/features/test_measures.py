"""Average precisions and recall against hand-made cases, brute force and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prototxt_gen.errors import DataError
from runtime.paper.features.measures import (
    ALL_POINTS,
    ELEVEN_POINTS,
    RECALL,
    average_precision,
    average_precision_11,
    class_recall,
    per_class,
)


def ranked(*truth: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that put the targets in the order given."""
    return np.arange(len(truth), 0, -1.0), np.array(truth, np.int8)


def brute_points(scores: np.ndarray, targets: np.ndarray) -> list[tuple[float, float]]:
    """(recall, precision) after each image that counts, by counting from the start each time."""
    rows = sorted(
        [(s, t) for s, t in zip(scores.tolist(), targets.tolist()) if t != 0], key=lambda r: -r[0]
    )
    positives = sum(t > 0 for _, t in rows)
    found = []
    for stop in range(1, len(rows) + 1):
        hits = sum(t > 0 for _, t in rows[:stop])
        found.append((hits / positives, hits / stop))
    return found


def brute_11(scores: np.ndarray, targets: np.ndarray) -> float:
    points = brute_points(scores, targets)
    best = []
    for tenth in range(11):
        beyond = [p for r, p in points if r >= tenth / 10 - 1e-12]
        best.append(max(beyond) if beyond else 0.0)
    return sum(best) / 11


def brute_area(scores: np.ndarray, targets: np.ndarray) -> float:
    """The area as the devkit has it: rectangles between the recalls where it grows."""
    points = brute_points(scores, targets)
    area, last = 0.0, 0.0
    for recall in sorted({r for r, _ in points}):
        if recall > last:
            area += (recall - last) * max(p for r, p in points if r >= recall)
            last = recall
    return area


def test_a_hand_made_ranking() -> None:
    """Hits at places 1 and 3 of 4: precision 1 up to recall 1/2, then 2/3."""
    scores, targets = ranked(1, -1, 1, -1)
    assert average_precision(scores, targets) == pytest.approx(1 / 2 + 2 / 3 / 2)
    assert average_precision_11(scores, targets) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


@pytest.mark.parametrize("measure", [average_precision, average_precision_11])
def test_the_best_and_the_worst_ranking(measure: object) -> None:
    assert measure(*ranked(1, 1, -1, -1, -1)) == 1.0
    assert measure(*ranked(-1, -1, -1, 1)) == pytest.approx(1 / 4)


@pytest.mark.parametrize("seed", range(25))
def test_random_rankings_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(5, 60))
    scores = rng.normal(size=count)
    targets = rng.choice([-1, 0, 1], count, p=[0.6, 0.1, 0.3]).astype(np.int8)
    targets[0] = 1
    assert average_precision_11(scores, targets) == pytest.approx(brute_11(scores, targets))
    assert average_precision(scores, targets) == pytest.approx(brute_area(scores, targets))


def test_scikit_learn_agrees_where_the_definitions_do() -> None:
    """They do where precision never rises from one hit to the next; else VOC's is the larger."""
    from sklearn.metrics import average_precision_score

    agreeing = larger = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        targets = rng.choice([-1, 1], 12, p=[0.5, 0.5]).astype(np.int8)
        targets[3] = 1
        scores = rng.normal(size=12) + targets
        theirs = average_precision_score(targets > 0, scores)
        ours = average_precision(scores, targets)
        precisions = [
            p for (_, p), t in zip(brute_points(scores, targets), sorted_hits(scores, targets)) if t
        ]
        if all(b <= a for a, b in itertools.pairwise(precisions)):
            assert ours == pytest.approx(theirs)
            agreeing += 1
        else:
            assert ours > theirs
            larger += 1
    assert agreeing > 50
    assert larger > 50


def sorted_hits(scores: np.ndarray, targets: np.ndarray) -> list[bool]:
    return [bool(targets[i] > 0) for i in np.argsort(-scores)]


def test_difficult_images_are_ignored() -> None:
    scores, targets = ranked(0, 1, 0, -1, 1, 0)
    some = targets != 0
    for measure in (average_precision, average_precision_11):
        assert measure(scores, targets) == measure(scores[some], targets[some])
        assert measure(scores, targets) != measure(scores, np.where(some, targets, -1))


def test_equal_scores_keep_their_order() -> None:
    same = np.zeros(2)
    assert average_precision(same, np.array([1, -1], np.int8)) == 1.0
    assert average_precision(same, np.array([-1, 1], np.int8)) == 0.5


def test_class_recall_by_counting() -> None:
    rng = np.random.default_rng(4)
    scores, labels = rng.normal(size=(40, 3)), np.arange(40) % 3
    wanted = []
    for label in range(3):
        own = [int(np.argmax(row)) == label for row, k in zip(scores, labels) if k == label]
        wanted.append(sum(own) / len(own))
    np.testing.assert_allclose(class_recall(scores, labels), wanted)
    # A class with many images weighs no more than one with few: the mean of 1/1 and 1/3.
    uneven = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], float)
    assert class_recall(uneven, np.array([0, 1, 1, 1])).mean() == pytest.approx((1 + 1 / 3) / 2)


def test_per_class_takes_columns() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(12, 3))
    targets = -np.ones((12, 3), np.int8)
    targets[np.arange(12), np.arange(12) % 3] = 1
    for name, measure in ((ALL_POINTS, average_precision), (ELEVEN_POINTS, average_precision_11)):
        wanted = [measure(scores[:, k], targets[:, k]) for k in range(3)]
        assert per_class(name, scores, targets).tolist() == wanted
    recall = per_class(RECALL, scores, targets)
    assert recall.tolist() == class_recall(scores, np.arange(12) % 3).tolist()


def test_classes_without_images_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        average_precision(*ranked(-1, 0, -1))
    assert str(caught.value) == (
        "average precision: no image belongs to the class; expected at least one target of 1; "
        "choose a split whose labels are published"
    )
    with pytest.raises(DataError, match="class recall: class 1 has no test images; expected at"):
        class_recall(np.ones((2, 2)), np.array([0, 0]))
