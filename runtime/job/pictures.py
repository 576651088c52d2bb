"""Draws held-out images with the predictions of the net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import datum as datums
from data_prep.lmdb_io import Reader
from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from prototxt_gen.integers import ceil_div
from runtime.evaluate.central_crop import Evaluation
from runtime.evaluate.confusion import short_name
from runtime.evaluate.metrics import ranks

_COLUMNS = 8
_SAMPLE = 4 * _COLUMNS
_WORST = 2 * _COLUMNS
_SEED = 0
_NAME_LENGTH = 14


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted classes of images, wrong by the rule of the top-1 error. Shapes: all (N,).

    Units: `probability` of the predicted class and `truth_loss`, the negative logarithm of that of
    the true class, are those of a softmax.
    """

    predicted: Any
    labels: Any
    wrong: Any
    probability: Any
    truth_loss: Any

    @classmethod
    def of(cls, evaluation: Evaluation) -> Predictions:
        """The predictions by scores; among equal best scores the true class is not chosen."""
        labels, rows = evaluation.labels, np.arange(len(evaluation.labels))
        scores = evaluation.scores.astype(np.float64)
        wrong = ranks(evaluation.scores, labels) != 0
        shifted = scores - scores.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        scores[rows[wrong], labels[wrong]] = -np.inf
        predicted = scores.argmax(axis=1)
        probability = np.exp(logs[rows, predicted])
        return cls(predicted, labels, wrong, probability, -logs[rows, labels])

    def sample(self, count: int, seed: int = _SEED) -> list[int]:
        """A random sample, in random order, with the same share of errors as all images."""
        images = len(self.labels)
        count = min(count, images)
        wrong, right = np.flatnonzero(self.wrong), np.flatnonzero(~self.wrong)
        errors = round(count * len(wrong) / images) if images else 0
        rng = np.random.default_rng(seed)
        chosen = [rng.choice(wrong, errors, False), rng.choice(right, count - errors, False)]
        return [int(index) for index in rng.permutation(np.concatenate(chosen))]

    def worst(self, count: int) -> list[int]:
        """The errors whose true class has the lowest probability, in increasing order."""
        wrong = np.flatnonzero(self.wrong)
        order = np.argsort(-np.nan_to_num(self.truth_loss[wrong], nan=np.inf), kind="stable")
        return [int(index) for index in wrong[order][:count]]


def draw_predictions(
    database: Path, evaluation: Evaluation, names: Sequence[str], png: Path, title: str
) -> Path:
    """Draw a random sample of the images and, separately, the worst errors.

    Raises:
        DataError: a record cannot be read, or the picture cannot be written.
    """
    # Without pyplot no display and no global state are needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with Reader(database) as reader:
        figure = predictions_figure(reader, Predictions.of(evaluation), names, title)
    FigureCanvasAgg(figure)
    with atomic_write(png, "wb", DataError) as stream:
        figure.savefig(stream, format="png", dpi=100)
    return png


def predictions_figure(
    reader: Reader, predictions: Predictions, names: Sequence[str], title: str
) -> Any:
    """The matplotlib figure of draw_predictions: one subfigure for each of its two parts.

    Raises:
        DataError: a record cannot be read.
    """
    from matplotlib.figure import Figure

    sample, worst = predictions.sample(_SAMPLE), predictions.worst(_WORST)
    errors, images = int(predictions.wrong.sum()), len(predictions.labels)
    drawn = sum(bool(predictions.wrong[index]) for index in sample)
    parts = [
        (
            sample,
            f"Random sample (seed {_SEED}): {len(sample)} of {images} images, "
            f"{drawn} wrong ({_percent(drawn, len(sample))}; "
            f"of all images {_percent(errors, images)})",
        ),
        (
            worst,
            f"Worst errors, not a sample: the {len(worst)} of {errors} wrong predictions with the "
            "lowest probability of the true class"
            if worst
            else "Worst errors: no prediction is wrong",
        ),
    ]
    rows = [max(1, ceil_div(len(indices), _COLUMNS)) for indices, _ in parts]
    heights = [1.75 * count + 0.5 for count in rows]
    figure = Figure(figsize=(1.45 * _COLUMNS, sum(heights) + 0.6), layout="constrained")
    figure.suptitle(f"{title}\nblack: right, red: wrong", fontsize=11)
    subfigures: Any = figure.subfigures(2, 1, height_ratios=heights)
    for part, count, (indices, words) in zip(subfigures, rows, parts):
        part.suptitle(words, fontsize=10, fontweight="bold")
        axes = part.subplots(count, _COLUMNS, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, index in zip(axes, indices):
            _draw_image(axis, reader, predictions, names, index)
    return figure


def _draw_image(
    axis: Any, reader: Reader, predictions: Predictions, names: Sequence[str], index: int
) -> None:
    record = f"record {reader.key(index)}"
    image = datums.image_of(datums.parse(reader.get(index), record), record, datums.COLOR)
    axis.imshow(image[:, :, ::-1])  # BGR to RGB
    label = _short(names[predictions.predicted[index]])
    label += f" {100 * predictions.probability[index]:.0f} %"
    wrong = bool(predictions.wrong[index])
    if wrong:
        label += f"\nis {_short(names[predictions.labels[index]])}"
    axis.set_title(label, fontsize=8, color="firebrick" if wrong else "black")


def _percent(part: int, total: int) -> str:
    return f"{100 * part / max(total, 1):.1f} %"


def _short(name: str) -> str:
    words = short_name(name)
    return words if len(words) <= _NAME_LENGTH else f"{words[: _NAME_LENGTH - 1]}…"
