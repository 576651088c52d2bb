"""The table printer and the published numbers that all parts of the reproduction share."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from prototxt_gen.errors import ProtoError
from runtime.paper.classification.published import rows as classification
from runtime.paper.features.published import rows as features
from runtime.paper.features.tasks import TASKS
from runtime.paper.localisation.published import rows as localisation
from runtime.paper.pictures import Bars, draw_bars
from runtime.paper.published import TITLES, PaperRow, check_table
from runtime.paper.report import (
    columns,
    missing_lines,
    percent,
    table_json,
    text_table,
    write_table,
)


def test_a_table_as_text() -> None:
    assert text_table(4, ("net", "top-1"), [("D", "24.8"), ("A-LRN", "-")]) == [
        "Table 4: ConvNet performance at multiple test scales",
        "",
        "net    top-1",
        "------------",
        "D      24.8",
        "A-LRN  -",
    ]
    assert columns([("a", "1"), ("bcd", "")], indent="  ") == ["  a    1", "  bcd"]


def test_numbers() -> None:
    assert [percent(None), percent(7.25), percent(92.7, 0.5)] == ["-", "7.2", "92.7 ± 0.5"]


def test_commands_of_missing_runs_are_listed_once() -> None:
    assert missing_lines([]) == []
    assert missing_lines(["x", "y", "x"])[2:] == ["  x", "  y"]


def test_a_table_is_written_as_json(tmp_path: Path) -> None:
    path = write_table(tmp_path, table_json(8, [{"row": "a"}], images=3))
    assert json.loads(path.read_text()) == {
        "table": 8,
        "title": TITLES[8],
        "units": "per cent",
        "images": 3,
        "rows": [{"row": "a"}],
    }


def test_all_tables_hold_their_numbers_in_one_form() -> None:
    rows: list[PaperRow] = [row for table in range(3, 8) for row in classification(table)]
    rows += [row for table in (8, 9) for row in localisation(table)]
    rows += [row for task in TASKS for row in features(task)]
    assert {row.table for row in rows} == set(TITLES)
    for row in rows:
        assert list(row.published) == list(row.columns)
        assert all(value is None or 0 < value < 100 for value in row.published.values())
    assert classification(6)[2].published == {"top1": 23.9, "top5": 7.2, "test_top5": None}


def test_an_unknown_table() -> None:
    with pytest.raises(ProtoError, match="table: expected one of 8, 9, got 3; see elsewhere"):
        check_table(3, (8, 9), "see elsewhere")


def test_bars_of_the_paper_and_measured_ones_have_one_scale(tmp_path: Path) -> None:
    """A bar of twice the number has twice the length, in every panel."""
    rows = [Bars("row", ((40.0, 20.0), (10.0, None)), "missing")]
    path = draw_bars("title", "note", ("top-1", "top-5"), rows, tmp_path / "bars.png")
    pixels = cv2.imread(str(path)).astype(int)
    top1, top5 = (40.0, 20.0), (10.0, None)
    paper, measured = (runs(pixels, bgr) for bgr in ((180, 130, 70), (0, 140, 255)))
    assert paper[0] == pytest.approx(measured[0] * top1[0] / top1[1], abs=3)
    assert paper[0] == pytest.approx(paper[1] * top1[0] / top5[0], abs=5)


def runs(pixels: np.ndarray, bgr: tuple[int, int, int]) -> list[int]:
    """The lengths of the horizontal lines of a colour, in the row with the longest of them."""
    best: list[int] = []
    for row in np.abs(pixels - bgr).max(axis=2) < 12:
        edges = np.flatnonzero(np.diff(np.r_[0, row, 0]))
        lengths = (edges[1::2] - edges[::2]).tolist()
        best = max(best, lengths, key=sum)
    return best
