"""Confusion matrices and errors of classes, by counting."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from data_prep.image_file import read_image_file
from prototxt_gen.errors import DataError, ShapeError
from runtime.evaluate.confusion import (
    class_errors,
    confusion_matrix,
    confusion_picture,
    frequent_confusions,
    short_name,
    worst_classes,
    write_confusion,
)
from runtime.evaluate.metrics import topk_error


def test_every_image_is_counted_once() -> None:
    scores = np.eye(3)[[0, 1, 1, 2]]
    matrix = confusion_matrix(scores, np.array([0, 1, 2, 2]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(300, 7)), rng.integers(0, 7, 300)
    expected = np.zeros((7, 7), int)
    for row, label in zip(scores, labels):
        expected[label, row.tolist().index(max(row))] += 1
    assert np.array_equal(confusion_matrix(scores, labels, 7), expected)


def test_the_diagonal_agrees_with_the_top1_error_in_spite_of_ties() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.integers(0, 3, (500, 4)).astype(float), rng.integers(0, 4, 500)
    matrix = confusion_matrix(scores, labels, 4)
    assert matrix.sum() == 500
    error = 1 - matrix.diagonal().sum() / 500
    assert error == pytest.approx(topk_error(scores, labels, 1))


def test_images_without_a_finite_score_are_not_counted() -> None:
    scores = np.array([[1.0, 0.0], [np.nan, 0.0], [0.0, np.inf]])
    assert confusion_matrix(scores, np.array([0, 0, 1]), 2).tolist() == [[1, 0], [0, 0]]


def test_a_net_may_have_fewer_outputs_than_there_are_classes() -> None:
    matrix = confusion_matrix(np.eye(2), np.array([0, 2]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_no_images() -> None:
    assert confusion_matrix(np.zeros((0, 3)), np.zeros(0, int), 3).sum() == 0


@pytest.mark.parametrize(
    ("scores", "labels", "classes", "error", "message"),
    [
        (np.zeros((2, 3)), np.zeros(3, int), 3, ShapeError, r"scores \(2, 3\) and labels \(3,\)"),
        (np.zeros((2, 3)), np.zeros(2, int), 2, ShapeError, "C at most 2 classes"),
        (np.zeros((2, 3)), np.array([0, 3]), 3, DataError, "labels from 0 to 3; expected 0 to 2"),
        (np.zeros((2, 3)), np.array([-1, 0]), 3, DataError, "labels from -1 to 0; expected 0"),
    ],
)
def test_input_that_does_not_fit(
    scores: np.ndarray, labels: np.ndarray, classes: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        confusion_matrix(scores, labels, classes)


def test_errors_and_order_of_classes() -> None:
    matrix = np.array([[3, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 2], [0, 0, 3, 3]])
    assert class_errors(matrix)[[0, 2, 3]].tolist() == [0.25, 0.75, 0.5]
    assert np.isnan(class_errors(matrix)[1])
    assert worst_classes(matrix, 3) == [2, 3, 0]
    assert worst_classes(matrix, 9) == [2, 3, 0, 1]
    assert frequent_confusions(matrix, 2) == [(3, 2, 3), (2, 3, 2)]
    assert frequent_confusions(np.eye(3, dtype=np.int64), 5) == []


def test_csv(tmp_path: Path) -> None:
    matrix = np.array([[3, 1], [0, 0]])
    path = write_confusion(matrix, ["cat, kitten", "dog"], tmp_path / "matrix.csv")
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["label", "class", "images", "top-1 error, %", "cat, kitten", "dog"],
        ["0", "cat, kitten", "4", "25.00", "3", "1"],
        ["1", "dog", "0", "", "0", "0"],
    ]


@pytest.mark.parametrize("classes", [1, 10, 1000])
def test_picture(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, classes, 3000)
    matrix = confusion_matrix(rng.normal(size=(3000, classes)), labels, classes)
    names = [f"n{k:08d} class {k}, other" for k in range(classes)]
    path = confusion_picture(matrix, names, tmp_path / "matrix.png")
    assert read_image_file(path).startswith(b"\x89PNG")


def test_a_picture_without_images(tmp_path: Path) -> None:
    assert confusion_picture(np.zeros((3, 3), int), list("abc"), tmp_path / "m.png").is_file()


def test_refused_files(tmp_path: Path) -> None:
    matrix = np.eye(2, dtype=np.int64)
    with pytest.raises(DataError, match=r"expected a name that ends in .png or .csv, got '.pdf'"):
        write_confusion(matrix, ["a", "b"], tmp_path / "matrix.pdf")
    for name in ("matrix.csv", "matrix.png"):
        with pytest.raises(ShapeError, match=r"1 names for a matrix of shape \(2, 2\)"):
            write_confusion(matrix, ["a"], tmp_path / name)


def test_names_with_formulas_and_suffixes_in_capitals(tmp_path: Path) -> None:
    matrix = np.eye(3, dtype=np.int64)
    names = [r"$\frac{$", "a$b$c", "100 $"]
    assert write_confusion(matrix, names, tmp_path / "m.PNG").stat().st_size > 1000
    assert write_confusion(matrix, names, tmp_path / "m.CSV").read_text().startswith("label,")
    with pytest.raises(DataError, match=r"m\.xyz: unknown format of a picture"):
        confusion_picture(matrix, names, tmp_path / "m.xyz")


def test_short_names() -> None:
    assert short_name("n01440764 tench, Tinca tinca") == "tench"
    assert short_name("night snake, Hypsiglena") == "night snake"
    assert short_name("n01440764") == "n01440764"
    assert short_name("a" * 30) == "a" * 21 + "…"
