"""Linear SVMs compared with scikit-learn's, and the selection of C."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from prototxt_gen.errors import DataError, ProtoError
from runtime.paper.features import svm
from runtime.paper.features.classification import mean_measure
from runtime.paper.features.measures import ALL_POINTS, RECALL
from runtime.paper.features.svm import HELD_OUT, choose_c, fit_svm, hold_out


def clouds(
    each: int = 20, classes: int = 3, dims: int = 6, noise: float = 0.6
) -> tuple[np.ndarray, np.ndarray]:
    """Points of length 1 around one direction a class, and targets of 1 and -1."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, dims))
    labels = np.arange(each * classes) % classes
    values = centres[labels] + rng.normal(0, noise, (len(labels), dims))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    targets = -np.ones((len(labels), classes), np.int8)
    targets[np.arange(len(labels)), labels] = 1
    return values.astype(np.float32), targets


def recall(scores: np.ndarray, targets: np.ndarray) -> float:
    return mean_measure(RECALL, scores, targets)


@pytest.mark.parametrize("dims", [6, 200])
def test_one_against_the_rest_is_as_scikit_learn_has_it(dims: int) -> None:
    from sklearn.svm import LinearSVC

    values, targets = clouds(dims=dims)
    found = fit_svm(values, targets, 1.0).scores(values)
    theirs = LinearSVC(C=1.0, dual=dims > 60, random_state=0).fit(values, targets.argmax(axis=1))
    np.testing.assert_allclose(found, theirs.decision_function(values), atol=2e-3)
    assert recall(found, targets) > 0.9


def test_ignored_images_are_omitted_for_their_class() -> None:
    values, targets = clouds()
    some = targets.copy()
    some[::5, 1] = 0
    used = some[:, 1] != 0
    found = fit_svm(values, some, 1.0)
    alone = fit_svm(values[used], targets[used], 1.0)
    whole = fit_svm(values, targets, 1.0)
    np.testing.assert_array_equal(found.weights[:, 1], alone.weights[:, 1])
    np.testing.assert_array_equal(found.weights[:, 0], whole.weights[:, 0])
    assert np.abs(found.weights[:, 1] - whole.weights[:, 1]).max() > 1e-3


def test_a_fifth_of_each_class_is_held_out_and_always_the_same() -> None:
    _, targets = clouds(each=20)
    names = [f"image{i}" for i in range(len(targets))]
    held = hold_out(targets, names)
    assert (targets[held] > 0).sum(axis=0).tolist() == [4, 4, 4]
    assert held.mean() == pytest.approx(HELD_OUT)
    np.testing.assert_array_equal(held, hold_out(targets, names))
    assert (held != hold_out(targets, names, seed=1)).any()


def test_images_of_several_classes_are_held_out_together_with_their_group() -> None:
    _, targets = clouds(each=10)
    targets[0] = 1
    names = [f"image{i // 2}" for i in range(len(targets))]
    held = hold_out(targets, names)
    assert held.sum() == 6
    assert all(held[i] == held[i + 1] for i in range(0, len(targets), 2))


def test_c_is_chosen_on_the_held_out_images() -> None:
    values, targets = clouds(dims=30, noise=2.5)
    names = [str(i) for i in range(len(targets))]
    grid = (1e-4, 0.01, 1.0, 100.0)
    choice = choose_c(values, targets, names, recall, grid)
    held = hold_out(targets, names)
    wanted = {
        C: recall(fit_svm(values[~held], targets[~held], C).scores(values[held]), targets[held])
        for C in grid
    }
    assert choice.measured == wanted
    best = max(wanted.values())
    assert min(C for C in grid if wanted[C] == best) == choice.C
    assert len(set(wanted.values())) > 1


def test_a_single_c_is_used() -> None:
    values, targets = clouds()
    assert choose_c(values, targets, [], recall, (3.0,)).C == 3.0


def test_a_class_without_images_held_out_does_not_count_in_the_choice() -> None:
    scores = np.array([[2.0, 0.0], [1.0, 0.0]])
    targets = np.array([[1, -1], [-1, -1]], np.int8)
    assert mean_measure(ALL_POINTS, scores, targets) == 1.0


def test_errors_of_bad_input(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    values, targets = clouds()
    for grid in ((), (0.0,), (1.0, -2.0)):
        with pytest.raises(ProtoError, match="C: expected positive numbers, got "):
            choose_c(values, targets, [], recall, grid)
    one_sided = targets.copy()
    one_sided[:, 2] = -1
    with pytest.raises(DataError) as caught:
        fit_svm(values, one_sided, 1.0)
    assert str(caught.value) == (
        "linear SVM: class 2 has 0 training images of 60; expected images of the class and of "
        "other classes; use more training images"
    )
    monkeypatch.setattr(svm, "_MAX_ITER", 1)
    with caplog.at_level(logging.WARNING, "verydeep.features"):
        fit_svm(*clouds(dims=200), 100.0)
    assert "linear SVM of class 0, C = 100: " in caplog.text
