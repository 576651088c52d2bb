"""The report in Markdown and its command, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.backend.registry import create_backend
from runtime.cli import paper
from runtime.cli.main import main
from runtime.evaluate.evaluation import Measured
from runtime.paper.classification.claims import claims, controls, judge
from runtime.paper.classification.experiment import report_lines, write_table
from runtime.paper.classification.published import TABLES, rows
from runtime.paper.classification.tables import Result, TableMaker
from runtime.paper.driver import RecipeOptions
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting

NOTE = {
    "net": "VGG-D-72-demo",
    "started_from": "D-256: from net A",
    "iterations": 7,
    "seconds": 1.5,
    "weights_sha256": "0123456789abcdef" * 4,
}


def measured(top1: float) -> Measured:
    wrong = np.arange(400) < round(400 * top1)
    return Measured(top1, top1 / 2, 400, "val", ({"net": "n"},), 0.0, wrong=wrong)


def test_a_report_shows_conclusions_tables_and_runs() -> None:
    table = [Result(row, measured(0.3 - 0.05 * i)) for i, row in enumerate(rows(5)[:3])]
    table += [Result(row, None, "", ("verydeep recipe --net E",)) for row in rows(5)[3:]]
    run = FinishedRun("D-256", Path("m"), Path("w"), NOTE)
    statements = [claim for claim in claims() if claim.section == "4.3"]
    verdicts = judge([*statements, *controls()], table)
    lines = report_lines(Setting(), [run], {5: table}, verdicts, (120.0, 30.0))
    shown = "\n".join(lines)
    assert "trained for 2.0 min and evaluated for 0.5 min" in shown
    assert "Of 4 conclusions, 2 are confirmed, 0 are contradicted and 2 are undecided." in shown
    gain = "+5.0 (+2.8 to +7.2)"
    claim = "D: multi-crop is better than dense | multicrop / dense"
    assert f"| 4.3 | {claim} | 25.0 | 30.0 | {gain} | for * |" in lines
    claim = "E: multi-crop is better than dense | multicrop / dense"
    assert f"| 4.3 | {claim} | - | - | - | not measured |" in lines
    assert sum("(A2)" in line for line in lines) == 4
    assert "![Table 5](tables/table5.png)" in lines
    assert lines.count("- missing: `verydeep recipe --net E`") == 1
    cells = "| D-256 | VGG-D-72-demo | D-256: from net A | 7 | 1.5 | 0123456789abcdef |"
    assert lines[-1] == cells


def test_a_table_without_runs_is_written(tmp_path: Path) -> None:
    maker = TableMaker(RunFolder(tmp_path), Setting(), create_backend("cpu"))
    for number in TABLES:
        results = maker.table(number)
        assert all(result.measured is None for result in results)
        assert all(bool(result.missing) == bool(result.row.nets) for result in results)
        data, picture = write_table(tmp_path / "tables", number, results)
        assert json.loads(data.read_text())["table"] == number
        assert picture.stat().st_size > 0


def test_the_command_passes_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def pretend(folder: RunFolder, setting: Setting, backend: Any, *rest: Any) -> Path:
        seen.append((folder, setting, *rest))
        return folder.root / "report.md"

    monkeypatch.setattr(paper, "reproduce", pretend)
    out = ["--out", str(tmp_path), "--max-iter", "3", "--threads", "1"]
    assert main(["paper", "--data", "demo", *out]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.md'}\n"
    assert main(["paper", "--data", "/data/ilsvrc12", "--table", "4", *out]) == 0
    options = RecipeOptions(1, 3)
    assert seen == [
        (RunFolder(tmp_path), Setting("demo"), options, TABLES),
        (RunFolder(tmp_path), Setting("/data/ilsvrc12"), options, (4,)),
    ]
