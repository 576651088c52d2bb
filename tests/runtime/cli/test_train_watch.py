"""`verydeep train` with the flags that watch a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cli.main import main
from runtime.logs.glog import close_logging
from tests.runtime.cli.test_train import NET, SOLVER


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    yield
    close_logging()


def train(*words: str) -> int:
    return main(["train", "--solver", "solver.prototxt", *words])


def test_the_best_weights_are_kept_and_tested(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--keep-best", "loss", "--average-weights", "0.9") == 0
    best = json.loads(Path("snap_best.json").read_text())
    assert best["iteration"] == 4
    assert Path("snap_iter_4.average.caffemodel").exists()
    capsys.readouterr()
    before = sorted(path.name for path in Path().iterdir())
    for weights in ("snap_best.caffemodel", "snap_iter_4.average.caffemodel"):
        assert train("--eval-only", "--weights", weights, "--json") == 0
        result = json.loads(capsys.readouterr().out)
        assert set(result["test"]) == {"accuracy", "loss"}
        assert (result["iterations"], result["files"], result["log_json"]) == (0, [], None)
        assert result["test"]["loss"] == pytest.approx(best["value"], abs=0.5)
    assert train("--eval-only", "--snapshot", "auto", "--json") == 0
    assert json.loads(capsys.readouterr().out)["iterations"] == 4
    # Nothing was written.
    assert sorted(path.name for path in Path().iterdir()) == before


def test_a_run_stops_early_with_a_snapshot(capsys: pytest.CaptureFixture[str]) -> None:
    # The accuracy of the constant label reaches 1 and cannot improve.
    text = SOLVER.replace("max_iter: 4", "max_iter: 1000").replace("base_lr: 0.1", "base_lr: 1")
    Path("solver.prototxt").write_text(text)
    assert train("--stop-metric", "accuracy", "--stop-after", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["stopped"] is True
    assert result["iterations"] < 1000
    assert Path(result["files"][0]).exists()
    assert json.loads(Path("snap_best.json").read_text())["tests_since"] == 3
    assert not Path("snap_best.caffemodel").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--keep-best", "top9"], "'top9': no output of a test net; expected one of"),
        (["--stop-after", "2"], "--stop-after: expected --keep-best or --stop-metric"),
        (["--stop-after", "0", "--keep-best", "loss"], "--stop-after: expected at least 1"),
        (["--stop-metric", "loss"], "expected it with --stop-after"),
        (["--average-weights", "1"], "expected a number between 0 and 1"),
        (["--eval-only"], "--eval-only: no weights"),
        (["--eval-only", "--snapshot", "auto"], "--eval-only: no weights"),
        (["--eval-only", "--keep-best", "loss"], "--keep-best: has no effect with --eval-only"),
    ],
)
def test_flags_that_do_not_fit(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*words) == 2
    assert message in capsys.readouterr().err
    assert not list(Path().glob("snap_*"))
