"""The learning curve of a run as a picture."""

from __future__ import annotations

import colorsys
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from runtime.logs.reader import LogTable, Row, read_log

_META = ("NumIters", "Seconds", "LearningRate")
_SMOOTH_FROM = 60
"""Points of a training series from which a running mean is drawn as well."""
_MOST = 1e30
"""Larger values, for example of a run that diverged, are not drawn; they would hide the others."""
_RATE_COLOUR = "0.3"
_LEGEND_ROWS = 10


@dataclass(frozen=True)
class _Series:
    phase: str
    name: str
    x: list[float]
    y: list[float]
    colour: str

    @property
    def is_loss(self) -> bool:
        return "loss" in self.name.lower()


def plot_learning_curve(
    log: str | os.PathLike[str], png: str | os.PathLike[str], title: str = ""
) -> Path:
    """Draw the losses, the scores and the learning rate of a log; returns the picture's path.

    Raises:
        DataError: the log cannot be read, or the picture cannot be written.
    """
    # A canvas without pyplot needs no display and no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = learning_curve_figure(log, title)
    FigureCanvasAgg(figure)
    with atomic_write(png, "wb", DataError) as stream:
        figure.savefig(stream, format="png", dpi=110)
    return Path(png)


def learning_curve_figure(log: str | os.PathLike[str], title: str = "") -> Any:
    """The matplotlib figure of a Caffe log or of a file of JSON lines.

    Each series has a colour that no other series of the figure has. A panel without data is
    omitted.

    Raises:
        DataError: the log cannot be read.
    """
    from matplotlib.figure import Figure

    table = read_log(log)
    series = _all_series(table)
    losses = [line for line in series if line.is_loss]
    scores = [line for line in series if not line.is_loss]
    heights = [3.0, 3.0, 1.2] if scores else [3.0, 1.2]
    figure = Figure(figsize=(12.0, 1.2 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    _draw_losses(axes[0], losses)
    if scores:
        _draw_scores(axes[1], scores)
    _draw_rate(axes[-1], table)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title or f"Learning curve of {Path(log).name}")
    return figure


def _all_series(table: LogTable) -> list[_Series]:
    """Every output of the training net and of the test nets that has a value to draw."""
    points = [
        (phase, name, *_points(rows, name))
        for phase, rows in (("train", table.train), ("test", table.test))
        for name in _names(rows)
    ]
    drawn = [entry for entry in points if entry[2]]
    return [_Series(*entry, colour) for entry, colour in zip(drawn, _colours(len(drawn)))]


def _colours(count: int) -> list[str]:
    """`count` colours that all differ: matplotlib's ten, or equal steps of hue if more are needed.

    The grey of the ten is left out: it is similar to the colour of the learning rate.
    """
    if count < 10:
        return [f"C{index}" for index in range(10) if index != 7][:count]
    shades = (0.85, 0.6)
    rgb = [colorsys.hsv_to_rgb(i / count, 0.85, shades[i % 2]) for i in range(count)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in rgb]


def _draw_losses(axis: Any, losses: list[_Series]) -> None:
    for line in losses:
        _draw(axis, line, f"{line.phase} {line.name}")
    values = [value for line in losses for value in line.y]
    positive = [value for value in values if value > 1 / _MOST]
    # A logarithmic axis shows a loss that falls by more than a decade.
    if positive and len(positive) == len(values) and max(positive) > 50 * min(positive):
        axis.set_yscale("log")
    axis.set_ylabel("loss")
    if values:
        _draw_legend(axis)


def _draw_scores(axis: Any, scores: list[_Series]) -> None:
    for line in scores:
        best = f", maximum {max(line.y):.4g}" if line.phase == "test" else ""
        _draw(axis, line, f"{line.phase} {line.name}{best}")
    axis.set_ylabel("score")
    low, high = axis.get_ylim()
    if low >= -0.1 and high <= 1.1:
        axis.set_ylim(min(low, 0.0), 1.02)
    _draw_legend(axis)


def _draw_legend(axis: Any) -> None:
    """Draw the legend to the right of the axes, where it covers no curve."""
    count = len(axis.lines)
    size = 9 if count <= _LEGEND_ROWS else 6
    axis.legend(
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        ncols=1 + (count - 1) // (2 * _LEGEND_ROWS),
        fontsize=size,
    )


def _draw(axis: Any, line: _Series, label: str) -> None:
    """Draw a series; a long one of training pale, with its running mean over it."""
    style = {"color": line.colour, "markersize": 3}
    if line.phase == "test":
        axis.plot(line.x, line.y, "o-", linewidth=1.4, label=label, **style)
        return
    if len(line.y) < _SMOOTH_FROM:
        axis.plot(line.x, line.y, "-", linewidth=1.4, label=label, **style)
        return
    width = len(line.y) // 20
    axis.plot(line.x, line.y, "-", linewidth=0.8, alpha=0.35, label=f"{label}, as logged", **style)
    mean = f"{label}, mean of {width} values"
    axis.plot(line.x, _running_mean(line.y, width), "-", linewidth=1.6, label=mean, **style)


def _draw_rate(axis: Any, table: LogTable) -> None:
    x, y = _points(table.train or table.test, "LearningRate")
    axis.step(x, y, where="post", color=_RATE_COLOUR, linewidth=1.4)
    if y and min(y) > 1 / _MOST and max(y) > 2 * min(y):
        axis.set_yscale("log")
    axis.set_ylabel("learning rate")
    axis.set_xlabel("iteration")


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name not in _META))


def _points(rows: list[Row], name: str) -> tuple[list[float], list[float]]:
    """Iterations and values; values that are missing, not finite or too large are omitted."""
    points = [(row["NumIters"], row[name]) for row in rows if abs(row.get(name, math.nan)) <= _MOST]
    return [x for x, _ in points], [y for _, y in points]


def _running_mean(values: list[float], width: int) -> list[float]:
    """The mean of each value and of the `width` - 1 before it, as far as there are so many."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [
        (sums[i + 1] - sums[max(i + 1 - width, 0)]) / min(i + 1, width) for i in range(len(values))
    ]
