"""Paper and measurement side by side: as text, JSON, Markdown and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from runtime.paper.classification.tables import Result
from runtime.paper.published import TITLES

_HEAD = ("nets (train S / test Q in the paper)", "evaluation", "paper top-1", "top-5")
_HERE = ("measured top-1", "top-5", "scales here")
_NOTHING = "-"
_MANY = 3
"""Nets up to which a row lists them when it has a name of its own."""


def cells(result: Result) -> list[str]:
    """A row's cells; errors in per cent."""
    row, measured = result.row, result.measured
    few = len(row.nets) <= _MANY
    label = row.method or " + ".join(map(str, row.nets))
    here = result.scales if few else f"{len(row.nets)} nets"
    own = [_percent(None), _percent(None)]
    if measured is not None:
        own = [_percent(100 * measured.top1), _percent(100 * measured.top5)]
    elif row.nets:
        own[0] = "missing"
    return [label, row.kind, _percent(row.top1), _percent(row.top5), *own, here]


def text_table(number: int, results: Sequence[Result], notes: Iterable[str] = ()) -> str:
    """A table as a person reads it in a terminal, with what is missing and how to get it."""
    table = [[*_HEAD, *_HERE], *(cells(result) for result in results)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [f"Table {number}: {TITLES[number]}", ""]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    lines.insert(3, "-" * (sum(widths) + 2 * len(widths) - 2))
    commands = missing_commands(results)
    if commands:
        lines += ["", "Missing runs; each of these trains one, with all it starts from:"]
        lines += [f"  {command}" for command in commands]
    lines += ["", *notes] if notes else []
    weights = {
        f"  {member['net']}: weights sha256 {member['weights_sha256'][:16]}, {member['protocol']}"
        for result in results
        if result.measured is not None
        for member in result.measured.members
    }
    if weights:
        lines += ["", "Measured with:", *sorted(weights)]
    return "\n".join(lines)


def missing_commands(results: Iterable[Result]) -> list[str]:
    """The commands that train what is missing, each once."""
    return list(dict.fromkeys(command for result in results for command in result.missing))


def table_json(number: int, results: Sequence[Result]) -> dict[str, Any]:
    """A table for a program."""
    return {
        "table": number,
        "title": TITLES[number],
        "units": "per cent",
        "rows": [result.to_json() for result in results],
    }


def markdown_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Rows between bars; bars within cells are escaped."""
    rows = [list(head), ["---"] * len(head), *(list(row) for row in body)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def markdown_results(results: Sequence[Result]) -> list[str]:
    """A table of results in Markdown."""
    return markdown_table((*_HEAD, *_HERE), (cells(result) for result in results))


def plot_table(number: int, results: Sequence[Result], png: Path) -> Path:
    """Draw the paper's top-1 errors beside the measured ones, a bar a row.

    Raises:
        DataError: the picture cannot be written.
    """
    # The object interface, without pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = [f"{result.row.method or cells(result)[0]} ({result.row.kind})" for result in results]
    places = list(range(len(results), 0, -1))
    figure = Figure(figsize=(12.0, 1.6 + 0.34 * len(results)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    paper = [result.row.top1 for result in results]
    here = [None if r.measured is None else 100 * r.measured.top1 for r in results]
    for axis, values, title in ((left, paper, "paper"), (right, here, "measured here")):
        axis.barh(
            places,
            [value or 0.0 for value in values],
            color="steelblue" if axis is left else "darkorange",
        )
        for place, value in zip(places, values):
            axis.annotate(
                _percent(value), (value or 0.0, place), xytext=(3, -3), textcoords="offset points"
            )
        known = [value for value in values if value is not None]
        axis.set_xlim(0, 1.15 * max(known) if known and max(known) > 0 else 1.0)
        axis.set_xlabel("top-1 error, %")
        axis.set_title(title)
        axis.spines[["top", "right"]].set_visible(False)
    left.set_yticks(places, labels, fontsize=8)
    figure.suptitle(f"Table {number}: {TITLES[number]}")
    with atomic_write(png, "wb", DataError) as stream:
        figure.savefig(stream, format="png", dpi=100)
    return png


def _percent(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.1f}"
