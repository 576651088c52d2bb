"""The learning curve of a run as a picture."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from runtime.logs.reader import LogTable, Row, read_log

_META = ("NumIters", "Seconds", "LearningRate")
_SMOOTH_FROM = 60
"""Rows of training from which a smoothed line is drawn over the raw one."""
_MOST = 1e30
"""Larger values, such as those of a run that diverged, are left out: no axis has room for them."""


def plot_learning_curve(
    log: str | os.PathLike[str], png: str | os.PathLike[str], title: str = ""
) -> Path:
    """Draw losses above, scores in the middle, the learning rate below; returns the picture's path.

    `log` is a Caffe log or a file of JSON lines. What the log has nothing of is left out.

    Raises:
        DataError: the log cannot be read, or the picture not be written.
    """
    # The object interface, without pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = read_log(log)
    scores = _score_names(table)
    heights = [3.0, 3.0, 1.2] if scores else [3.0, 1.2]
    figure = Figure(figsize=(9.0, 1.2 + sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    _draw_losses(axes[0], table)
    if scores:
        _draw_scores(axes[1], table, scores)
    _draw_rate(axes[-1], table)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title or f"Learning curve of {Path(log).name}")
    with atomic_write(png, "wb", DataError) as stream:
        figure.savefig(stream, format="png", dpi=110)
    return Path(png)


def _draw_losses(axis: Any, table: LogTable) -> None:
    values = []
    for rows, phase, style in ((table.train, "train", "-"), (table.test, "test", "o-")):
        for name in _loss_names(rows):
            x, y = _series(rows, name)
            values += y
            many = phase == "train" and len(y) >= _SMOOTH_FROM
            lines = axis.plot(
                x,
                y,
                style,
                markersize=3,
                linewidth=0.8 if many else 1.4,
                alpha=0.35 if many else 1.0,
                label=None if many else f"{phase} {name}",
            )
            if many:
                axis.plot(
                    x,
                    _smooth(y),
                    "-",
                    linewidth=1.6,
                    color=lines[0].get_color(),
                    label=f"{phase} {name}",
                )
    positive = [v for v in values if v > 1 / _MOST]
    # A loss that falls through decades is read on a logarithmic axis.
    if positive and len(positive) == len(values) and max(positive) > 50 * min(positive):
        axis.set_yscale("log")
    axis.set_ylabel("loss")
    if values:
        axis.legend(loc="upper right", frameon=False)


def _draw_scores(axis: Any, table: LogTable, names: list[str]) -> None:
    for rows, phase, style in ((table.train, "train", "-"), (table.test, "test", "o-")):
        for name in names:
            x, y = _series(rows, name)
            if not x:
                continue
            best = f", best {max(y):.4g}" if phase == "test" else ""
            axis.plot(x, y, style, markersize=3, linewidth=1.4, label=f"{phase} {name}{best}")
    axis.set_ylabel("score")
    low, high = axis.get_ylim()
    if low >= -0.1 and high <= 1.1:
        axis.set_ylim(min(low, 0.0), 1.02)
    axis.legend(loc="lower right", frameon=False)


def _draw_rate(axis: Any, table: LogTable) -> None:
    x, y = _series(table.train or table.test, "LearningRate")
    axis.step(x, y, where="post", color="0.3", linewidth=1.4)
    if y and min(y) > 1 / _MOST and max(y) > 2 * min(y):
        axis.set_yscale("log")
    axis.set_ylabel("learning rate")
    axis.set_xlabel("iteration")


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name not in _META))


def _loss_names(rows: list[Row]) -> list[str]:
    return [name for name in _names(rows) if "loss" in name.lower()]


def _score_names(table: LogTable) -> list[str]:
    names = dict.fromkeys(_names(table.test) + _names(table.train))
    return [name for name in names if "loss" not in name.lower()]


def _series(rows: list[Row], name: str) -> tuple[list[float], list[float]]:
    points = [(row["NumIters"], row[name]) for row in rows if abs(row.get(name, math.nan)) <= _MOST]
    return [x for x, _ in points], [y for _, y in points]


def _smooth(values: list[float]) -> list[float]:
    """A running mean over a twentieth of the points, of what was known at each."""
    width = max(len(values) // 20, 1)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [
        (sums[i + 1] - sums[max(i + 1 - width, 0)]) / min(i + 1, width) for i in range(len(values))
    ]
