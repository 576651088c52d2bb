"""Tables as text, Markdown and JSON: one form for all parts of the reproduction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from runtime.paper.published import TITLES

_GAP = "  "
_ABSENT = "-"


def percent(value: float | None, std: float | None = None) -> str:
    """Return a number in per cent with one digit, and its standard deviation; `-` for None."""
    if value is None:
        return _ABSENT
    return f"{value:.1f}" if std is None else f"{value:.1f} ± {std:.1f}"


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Return rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [(indent + _GAP.join(map(str.ljust, row, widths))).rstrip() for row in rows]


def text_table(
    number: int, head: Sequence[str], body: Iterable[Sequence[str]], title: str = ""
) -> list[str]:
    """Return a table of the paper as lines: number and title, head, rule and rows."""
    rows = [list(head), *(list(row) for row in body)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    first, *others = columns(rows)
    return [f"Table {number}: {title or TITLES[number]}", "", first, rule, *others]


def markdown_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table; bars within cells are escaped."""
    rows = [list(head), ["---"] * len(head), *(list(row) for row in body)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def missing_lines(commands: Iterable[str]) -> list[str]:
    """Return a paragraph with the commands that train the missing runs; nothing without any."""
    unique = list(dict.fromkeys(commands))
    if not unique:
        return []
    head = "Missing runs. Each command trains one run and all runs that it starts from:"
    return ["", head, *(f"{_GAP}{command}" for command in unique)]


def table_json(number: int, rows: Iterable[dict[str, Any]], **values: Any) -> dict[str, Any]:
    """Return a table as a JSON object; numbers are in per cent."""
    head = {"table": number, "title": TITLES[number], "units": "per cent"}
    return {**head, **values, "rows": list(rows)}


def write_table(folder: Path, table: dict[str, Any]) -> Path:
    """Write the JSON of a table; return its path.

    Raises:
        DataError: the file cannot be written.
    """
    path = folder / f"table{table['table']}.json"
    atomic_write_text(path, json.dumps(table, indent=2) + "\n", DataError)
    return path
