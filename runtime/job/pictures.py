"""The pictures of a run: held-out images with what the net says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import datum as datums
from data_prep.lmdb_io import Reader
from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from runtime.evaluate.central_crop import Evaluation

_COLUMNS, _ROWS = 8, 5


def draw_predictions(
    database: Path, evaluation: Evaluation, names: Sequence[str], png: Path, title: str
) -> Path:
    """Draw images with the predicted class and its probability; mistakes are red and come first.

    Raises:
        DataError: a record cannot be read, or the picture not be written.
    """
    # The object interface, without pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    prob = _softmax(evaluation.scores)
    best = prob.argmax(axis=1)
    chosen = _choose(best != evaluation.labels, _COLUMNS * _ROWS)
    figure = Figure(figsize=(1.45 * _COLUMNS, 1.75 * _ROWS + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(_ROWS, _COLUMNS, squeeze=False).ravel()
    with Reader(database) as reader:
        for axis, place in zip(axes, chosen):
            where = f"record {reader.key(place)}"
            image = datums.image_of(datums.parse(reader.get(place), where), where, datums.COLOR)
            axis.imshow(image[:, :, ::-1])  # BGR to RGB
            right = best[place] == evaluation.labels[place]
            label = f"{_short(names[best[place]])} {100 * prob[place, best[place]]:.0f} %"
            if not right:
                label += f"\nis {_short(names[evaluation.labels[place]])}"
            axis.set_title(label, fontsize=8, color="black" if right else "firebrick")
    for axis in axes:
        axis.axis("off")
    figure.suptitle(title)
    with atomic_write(png, "wb", DataError) as stream:
        figure.savefig(stream, format="png", dpi=100)
    return png


def _softmax(scores: Any) -> Any:
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _choose(wrong: Any, count: int) -> list[int]:
    """At most a row of mistakes, then hits, in the order of the database."""
    mistakes = np.flatnonzero(wrong)[:_COLUMNS]
    hits = np.flatnonzero(~wrong)[: count - len(mistakes)]
    return [int(i) for i in (*mistakes, *hits)]


def _short(name: str) -> str:
    """A synset's first word, without its wnid."""
    words = name.partition(" ")[2] or name
    return words.split(",")[0][:14]
