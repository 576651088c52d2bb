"""Bar charts of published and measured numbers on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.evaluate.figures import new_figure, save_figure

PAPER, MEASURED = "steelblue", "darkorange"
_HEIGHT = 0.38
Pair = tuple[float | None, float | None]
"""A published and a measured number. Units: per cent."""


@dataclass(frozen=True)
class Bars:
    """A row of a chart: a pair of numbers for each measure."""

    label: str
    values: Sequence[Pair]
    absent: str = ""
    """Printed in place of a bar that was not measured."""


def draw_bars(
    title: str, note: str, measures: Sequence[str], rows: Sequence[Bars], path: Path
) -> Path:
    """Draw a panel for each measure, with the published above the measured bar in every row.

    All panels have the same scale, so that the lengths of all bars can be compared.

    Raises:
        DataError: the picture cannot be written.
    """
    size = (6.0 + 3.6 * len(measures), 1.9 + 0.5 * len(rows))
    figure = new_figure(*size)
    axes = figure.subplots(1, len(measures), sharex=True, sharey=True, squeeze=False)[0]
    numbers = [n for row in rows for pair in row.values for n in pair if n is not None]
    for index, (axis, measure) in enumerate(zip(axes, measures)):
        pairs = [row.values[index] for row in rows]
        _draw_panel(axis, pairs, [row.absent for row in rows])
        axis.set_xlabel(measure)
    axes[0].set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    axes[0].set_xlim(0, 1.15 * max(numbers, default=0.0) or 1.0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{title}\n{note}", fontsize=11)
    return save_figure(figure, path)


def _draw_panel(axis: Any, pairs: Sequence[Pair], absent: Sequence[str]) -> None:
    for side, (colour, name) in enumerate(((PAPER, "paper"), (MEASURED, "measured"))):
        places = [row + (side - 0.5) * _HEIGHT for row in range(len(pairs))]
        values = [pair[side] for pair in pairs]
        lengths = [0.0 if value is None else value for value in values]
        axis.barh(places, lengths, _HEIGHT, color=colour, label=name)
        for place, value, text in zip(places, values, absent):
            shown = (text if side else "") if value is None else f"{value:.1f}"
            axis.annotate(
                shown,
                (value or 0.0, place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color="black" if value is not None else "dimgray",
            )
    axis.spines[["top", "right"]].set_visible(False)
