"""Published and measured classification errors: as text, JSON, Markdown and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from runtime.evaluate.protocol import BOTH, MULTICROP
from runtime.paper import report
from runtime.paper.classification.published import Row, TestedNet
from runtime.paper.classification.tables import Result
from runtime.paper.pictures import Bars, draw_bars
from runtime.paper.published import TITLES
from runtime.paper.recipe import scale_name
from runtime.paper.report import markdown_table, missing_lines, percent

_HEAD = ("nets (train S / test Q in the paper)", "evaluation", "paper top-1", "top-5")
_MEASURED_HEAD = ("measured top-1", "top-5", "scales here")
_MOST_LISTED = 3
"""A row with more nets gives their number only."""
_KINDS = {MULTICROP: "multi-crop", BOTH: "multi-crop and dense"}


def cells(result: Result) -> list[str]:
    """Return the cells of a row. Units: per cent."""
    published = result.row.published
    top1, top5 = measured_errors(result)
    nets = result.row.nets
    return [
        result.row.label,
        result.row.kind,
        percent(published["top1"]),
        percent(published["top5"]),
        "missing" if nets and top1 is None else percent(top1),
        percent(top5),
        result.scales if len(nets) <= _MOST_LISTED else f"{len(nets)} nets",
    ]


def measured_errors(result: Result) -> tuple[float | None, float | None]:
    """Return the measured top-1 and top-5 errors, None if a run is missing. Units: per cent."""
    measured = result.measured
    return (None, None) if measured is None else (100 * measured.top1, 100 * measured.top5)


def text_table(number: int, results: Sequence[Result], notes: Iterable[str] = ()) -> str:
    """Return a table as text, with the commands for missing runs and the weights it depends on."""
    lines = report.text_table(number, (*_HEAD, *_MEASURED_HEAD), map(cells, results))
    lines += missing_lines(missing_commands(results))
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
    """Return the commands that train the missing runs, each once."""
    return list(dict.fromkeys(command for result in results for command in result.missing))


def table_json(number: int, results: Sequence[Result]) -> dict[str, Any]:
    """Return a table as a JSON object. Units: per cent."""
    return report.table_json(number, (result.to_json() for result in results))


def markdown_results(results: Sequence[Result]) -> list[str]:
    """Return a table in Markdown."""
    return markdown_table((*_HEAD, *_MEASURED_HEAD), map(cells, results))


def plot_table(number: int, results: Sequence[Result], png: Path) -> Path:
    """Draw the published and the measured errors of a table, top-1 and top-5.

    Raises:
        DataError: the picture cannot be written.
    """
    bars = []
    for result in results:
        top1, top5 = measured_errors(result)
        published = result.row.published
        absent = "missing" if result.row.nets else ""
        values = ((published["top1"], top1), (published["top5"], top5))
        bars.append(Bars(row_title(result.row), values, absent))
    title = f"Table {number}: {TITLES[number]}"
    note = "S: training scale, Q: test scales, both as in the paper"
    return draw_bars(title, note, ("top-1 error, %", "top-5 error, %"), bars, png)


def row_title(row: Row) -> str:
    """Return a row's nets and evaluation in words: `D + E, S 256-512, Q 256, 384; dense`."""
    kind = _KINDS.get(row.kind, row.kind)
    if row.method:
        return f"{row.method}; {kind}" if row.nets else row.method
    scales = {_scales(net) for net in row.nets}
    if len(scales) == 1:
        nets = f"{' + '.join(net.net for net in row.nets)}, {scales.pop()}"
    else:
        nets = " + ".join(f"{net.net} ({_scales(net)})" for net in row.nets)
    return f"{nets}; {kind}"


def _scales(net: TestedNet) -> str:
    return f"S {scale_name(net.train)}, Q {', '.join(map(str, net.test))}"
