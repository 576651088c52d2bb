"""Confusion matrices and the errors of single classes: computed, written as CSV and drawn."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DataError, ShapeError
from prototxt_gen.files import atomic_write_text
from runtime.evaluate.figures import new_figure, plain_text, save_figure
from runtime.evaluate.metrics import Labels, Scores, ranks

Matrix = npt.NDArray[np.int64]
Pair = tuple[int, int, int]
"""True class, predicted class, number of images."""

SUFFIXES = (".png", ".csv")
_CELL_CLASSES = 20
"""Up to this number of classes, the picture has a row, a column and a name for each."""
_WORST = 20
_PAIRS = 15
_NAME_LENGTH = 22


def confusion_matrix(scores: Scores, labels: Labels, classes: int) -> Matrix:
    """Count the images of every true class (row) by predicted class (column).

    The predicted class has the highest score. If the true class shares it with another class, the
    other one is counted, so that the diagonal agrees with the top-1 error. Images with a score of
    NaN or infinity are not counted.

    Shapes: scores (N,C) with C at most `classes`, labels (N,); result (classes, classes).

    Raises:
        ShapeError: scores and labels do not fit together, or there are more scores than classes.
        DataError: a label is not in 0 to classes - 1.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or scores.shape[1] > classes:
        raise ShapeError(
            f"confusion matrix: scores {scores.shape} and labels {labels.shape}; expected (N,C) "
            f"and (N,) with C at most {classes} classes; use the scores and names of one net"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"confusion matrix: labels from {labels.min()} to {labels.max()}; expected 0 to "
            f"{classes - 1} for {classes} classes; evaluate on the data set of the net"
        )
    finite = np.isfinite(scores).all(axis=1)
    scores, labels = scores[finite], labels[finite].astype(np.int64)
    if not labels.size:
        return np.zeros((classes, classes), np.int64)
    predicted = scores.argmax(axis=1)
    scored = labels < scores.shape[1]
    tied = np.zeros(len(labels), np.bool_)
    tied[scored] = ranks(scores[scored], labels[scored]) > 0
    for row in np.flatnonzero(tied & (predicted == labels)):
        others = scores[row].astype(np.float64)
        others[labels[row]] = -np.inf
        predicted[row] = others.argmax()
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_errors(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Return the fraction of wrong images of every class, NaN for a class without images.

    Shapes: matrix (C,C); result (C,).
    """
    images = matrix.sum(axis=1)
    wrong = (images - matrix.diagonal()).astype(np.float64)
    absent = np.full(len(images), np.nan)
    return np.asarray(np.divide(wrong, images, out=absent, where=images > 0))


def worst_classes(matrix: Matrix, count: int) -> list[int]:
    """Return the classes with the largest errors, the largest first; those without images last.

    Of equal errors, the class with more images comes first.
    """
    errors = np.nan_to_num(class_errors(matrix), nan=-1.0)
    return [int(k) for k in np.lexsort((-matrix.sum(axis=1), -errors))[:count]]


def frequent_confusions(matrix: Matrix, count: int) -> list[Pair]:
    """Return the most frequent errors, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-wrong[rows, columns], kind="stable")[:count]
    return [(int(i), int(j), int(wrong[i, j])) for i, j in zip(rows[order], columns[order])]


def write_confusion(matrix: Matrix, names: Sequence[str], path: Path) -> Path:
    """Write a matrix in the format of the file's suffix: a CSV table or a PNG picture.

    Raises:
        DataError: another suffix, or the file cannot be written.
        ShapeError: the number of names is not the number of classes.
    """
    check_suffix(path)
    write = confusion_csv if path.suffix.lower() == ".csv" else confusion_picture
    return write(matrix, names, path)


def check_suffix(path: Path) -> None:
    """Check that `write_confusion` supports the suffix of a file.

    Raises:
        DataError: it does not.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: unknown format of a confusion matrix; expected a name that ends in "
            f"{' or '.join(SUFFIXES)}, got {path.suffix!r}; rename the file"
        )


def confusion_csv(matrix: Matrix, names: Sequence[str], path: Path) -> Path:
    """Write a row for each true class: label, name, images, top-1 error in per cent, counts.

    Shapes: matrix (C,C).

    Raises:
        ShapeError: the number of names is not the number of classes.
        DataError: the file cannot be written.
    """
    _check_names(matrix, names)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["label", "class", "images", "top-1 error, %", *names])
    for label, (name, error, row) in enumerate(zip(names, class_errors(matrix), matrix)):
        shown = "" if np.isnan(error) else f"{100 * error:.2f}"
        writer.writerow([label, name, row.sum(), shown, *row])
    atomic_write_text(path, stream.getvalue(), DataError)
    return path


def confusion_picture(matrix: Matrix, names: Sequence[str], path: Path) -> Path:
    """Draw a confusion matrix with the errors of single classes, as PNG or by the file's suffix.

    Up to 20 classes have a labelled row and column each, and a bar with their error. With more
    classes, the picture lists the classes with the largest errors and the most frequent
    confusions, and draws every class as a row of pixels.

    Shapes: matrix (C,C).

    Raises:
        ShapeError: the number of names is not the number of classes.
        DataError: the file cannot be written.
    """
    _check_names(matrix, names)
    short = [plain_text(short_name(name)) for name in names]
    classes = len(names)
    if classes <= _CELL_CLASSES:
        side = max(4.0, 0.42 * classes + 1.8)
        figure = new_figure(1.8 * side + 0.6, side + 0.6)
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_cells(left, matrix, short)
        _draw_errors(right, matrix, short, list(range(classes)), "Top-1 error of each class")
    else:
        figure = new_figure(19.0, 9.0)
        left, middle, right = figure.subplots(1, 3, width_ratios=(10, 4, 4))
        _draw_pixels(figure, left, matrix)
        worst = worst_classes(matrix, _WORST)
        _draw_errors(middle, matrix, short, worst, f"The {len(worst)} largest errors of a class")
        _draw_confusions(right, matrix, short)
    figure.suptitle(_title(matrix))
    return save_figure(figure, path)


def short_name(name: str) -> str:
    """Return a synset's first word without its wnid, at most 22 characters of it."""
    wnid, _, words = name.partition(" ")
    is_wnid = len(wnid) > 1 and wnid[0] == "n" and wnid[1:].isdigit()
    first = (words if is_wnid and words else name).split(",")[0].strip()
    return first if len(first) <= _NAME_LENGTH else f"{first[: _NAME_LENGTH - 1]}…"


def _check_names(matrix: Matrix, names: Sequence[str]) -> None:
    if matrix.ndim != 2 or matrix.shape != (len(names), len(names)):
        raise ShapeError(
            f"confusion matrix: {len(names)} names for a matrix of shape {matrix.shape}; expected "
            "(C,C) for C names; use the names of the net's classes"
        )


def _title(matrix: Matrix) -> str:
    images, classes = int(matrix.sum()), len(matrix)
    wrong = images - int(matrix.diagonal().sum())
    share = f", {100 * wrong / images:.1f} % wrong (top-1)" if images else ""
    return f"Confusion matrix: {images} images of {classes} classes{share}"


def _shares(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Fractions of the images of each row."""
    return np.asarray(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))


def _draw_cells(axis: Any, matrix: Matrix, names: Sequence[str]) -> None:
    shares = _shares(matrix)
    axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    places = range(len(names))
    axis.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    axis.set_yticks(places, names, fontsize=9)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    axis.set_title("Images; darker: a larger share of the row", fontsize=10)


def _draw_pixels(figure: Any, axis: Any, matrix: Matrix) -> None:
    from matplotlib.colors import PowerNorm

    # A single pixel disappears when a large matrix is scaled down: draw each cell as a dot.
    rows, columns = np.nonzero(matrix)
    shares = 100 * _shares(matrix)[rows, columns]
    order = np.argsort(shares)
    size = (600 / len(matrix)) ** 2 * 0.5
    dots = axis.scatter(
        columns[order],
        rows[order],
        c=shares[order],
        s=max(size, 1.2),
        marker="s",
        linewidths=0,
        cmap="viridis_r",
        norm=PowerNorm(0.5, 0.0, 100.0),
    )
    axis.set_xlim(-0.5, len(matrix) - 0.5)
    axis.set_ylim(len(matrix) - 0.5, -0.5)
    axis.set_aspect("equal")
    axis.set_xlabel("predicted class (label)")
    axis.set_ylabel("true class (label)")
    axis.set_title("Share of the true class's images; white: none", fontsize=10)
    figure.colorbar(dots, ax=axis, shrink=0.7, label="% of the row")


def _draw_errors(
    axis: Any, matrix: Matrix, names: Sequence[str], chosen: Sequence[int], title: str
) -> None:
    errors, images = class_errors(matrix), matrix.sum(axis=1)
    places = list(range(len(chosen)))
    values = [0.0 if np.isnan(errors[k]) else 100 * float(errors[k]) for k in chosen]
    axis.barh(places, values, color="steelblue")
    for place, k, value in zip(places, chosen, values):
        shown = "no images" if np.isnan(errors[k]) else f"{value:.1f} % of {images[k]}"
        axis.annotate(
            shown, (value, place), xytext=(3, 0), textcoords="offset points", va="center", size=8
        )
    axis.set_yticks(places, [names[k] for k in chosen], fontsize=8)
    axis.set_ylim(len(chosen) - 0.5, -0.5)
    limit = max(1.0, max(values, default=0.0))
    axis.set_xlim(0, 1.45 * limit)
    axis.set_xticks([tick for tick in axis.get_xticks() if tick <= max(limit, 1.0)])
    axis.set_xlabel("top-1 error, %")
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_confusions(axis: Any, matrix: Matrix, names: Sequence[str]) -> None:
    images = matrix.sum(axis=1)
    axis.axis("off")
    axis.set_title("The most frequent confusions", fontsize=10)
    lines = [
        f"{names[true]}\n      as {names[predicted]}: {count} of {images[true]}"
        for true, predicted, count in frequent_confusions(matrix, _PAIRS)
    ]
    text = "\n".join(lines) or "none"
    axis.text(0, 1, text, va="top", fontsize=9, linespacing=1.4, transform=axis.transAxes)
