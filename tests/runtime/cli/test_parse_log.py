"""`verydeep parse_log` and `verydeep plot_log`."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from runtime.cli.main import main
from runtime.cli.parse_log import csv_text

TRACE = Path(__file__).parents[2] / "golden" / "traces" / "lenet_step" / "log.txt"


def _rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


def test_two_files_as_caffes_script_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["parse_log", str(TRACE), str(tmp_path / "out"), "--verbose"]) == 0
    train, test = tmp_path / "out" / "log.txt.train", tmp_path / "out" / "log.txt.test"
    assert capsys.readouterr().out.splitlines() == [f"Wrote {train}", f"Wrote {test}"]
    assert train.read_text().splitlines()[0] == "NumIters,Seconds,LearningRate,loss"
    assert test.read_text().splitlines()[0] == "NumIters,Seconds,LearningRate,accuracy,loss"
    rows = _rows(train)
    assert len(rows) == 50 and rows[15] == {
        "NumIters": "15.0",
        "Seconds": rows[15]["Seconds"],
        "LearningRate": "0.01",
        "loss": "0.776151",
    }
    assert float(rows[15]["Seconds"]) == pytest.approx(0.006113, abs=1e-6)
    assert [row["accuracy"] for row in _rows(test)][-1] == "1.0"


def test_another_delimiter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parse_log", str(TRACE), str(tmp_path), "--delimiter", "\t"]) == 0
    assert _rows(tmp_path / "log.txt.train", "\t")[0]["loss"] == "2.18848"
    assert main(["parse_log", str(TRACE), str(tmp_path), "--delimiter", "ab"]) == 2
    assert "--delimiter: expected one character" in capsys.readouterr().err


def test_columns_that_come_later_are_kept() -> None:
    rows = [{"NumIters": 0.0, "loss": 1.0}, {"NumIters": 1.0, "loss": 2.0, "new": 3.0}]
    assert csv_text(rows, ",") == "NumIters,loss,new\n0.0,1.0,\n1.0,2.0,3.0\n"
    assert csv_text([], ",") == ""


def test_a_missing_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parse_log", str(tmp_path / "none"), str(tmp_path)]) == 2
    assert "the log cannot be read" in capsys.readouterr().err


def test_plot_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "train.log"
    log.write_bytes(TRACE.read_bytes())
    assert main(["plot_log", str(log)]) == 0
    assert capsys.readouterr().out.strip() == f"{log}.png"
    assert main(["plot_log", str(log), "--out", str(tmp_path / "c.png"), "--title", "T"]) == 0
    for name in ("train.log.png", "c.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
