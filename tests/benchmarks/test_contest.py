"""The benchmarks' own code, and that the documents show what was measured."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
from serve import arguments, serve
import time
args = arguments()
serve(lambda: time.sleep(args.batch / 1000), {"name": args.work, "net": args.net})
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import one of the benchmarks' scripts, which are outside the packages."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names: list[str] = []

    def imported(name: str) -> ModuleType:
        names.append(name)
        return importlib.import_module(name)

    yield imported
    for name in names:
        sys.modules.pop(name, None)


def test_contestants_run_round_by_round(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = module("contest")
    (tmp_path / "worker.py").write_text(WORKER)
    serve = (ROOT / "benchmarks" / "workers" / "serve.py").read_text()
    (tmp_path / "serve.py").write_text(serve)
    monkeypatch.setattr(contest, "WORKERS", tmp_path)
    entries = [contest.Entry(key, sys.executable, "worker.py") for key in ("one", "two")]
    outcome = contest.compete(entries, contest.Job("forward", "D", 2, 1), rounds=3)
    assert {key: len(times) for key, times in outcome.times.items()} == {"one": 3, "two": 3}
    assert all(time >= 2 for times in outcome.times.values() for time in times)
    assert all(peak > 1 for peak in outcome.peaks.values())
    assert outcome.descriptions["one"] == {"name": "forward", "net": "D"}


def test_a_worker_that_dies_is_reported(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = module("contest")
    (tmp_path / "worker.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(contest, "WORKERS", tmp_path)
    with pytest.raises(RuntimeError, match="one: the worker ended with 3"):
        contest.Contestant(
            contest.Entry("one", sys.executable, "worker.py"), contest.Job("step", "D", 1, 1)
        )


def test_a_ratio_is_the_median_of_the_rounds_own(module: Any) -> None:
    outcome = module("contest").Outcome(times={"a": [2.0, 9.0, 30.0], "b": [1.0, 3.0, 30.0]})
    assert outcome.ratio("a", "b") == 2.0
    assert outcome.best(["a", "b"]) == "b"


def test_the_best_of_the_peer_s_ways_is_judged(module: Any) -> None:
    cpu, contest = module("cpu"), module("contest")
    outcome = contest.Outcome(
        times={"verydeep": [10.0], "PyTorch nchw": [30.0], "PyTorch nhwc": [20.0]},
        peaks={"verydeep": 100.0, "PyTorch nchw": 150.0, "PyTorch nhwc": 120.0},
    )
    bars = {bar.key: bar for bar in cpu.BARS}
    ratio, peer, _ = cpu.judged(bars["step D 8"], outcome)
    assert (ratio, peer) == (2.0, "PyTorch nhwc")
    ratio, peer, _ = cpu.judged(bars["memory D 8"], outcome)
    assert (ratio, peer) == (1.2, "PyTorch nhwc")


def test_caffes_figures_are_carried_over(module: Any) -> None:
    """By the peer that was measured with Caffe then, and with this project now."""
    cpu, contest = module("cpu"), module("contest")
    bar = next(bar for bar in cpu.BARS if bar.key == "caffe D 8")
    outcome = contest.Outcome(times={"verydeep": [1000.0], "PyTorch nhwc": [2 * 557.0]})
    ratio, peer, values = cpu.judged(bar, outcome)
    assert peer == "original Caffe" and ratio == pytest.approx(2 * 0.761)
    assert values["original Caffe"] == pytest.approx(2 * 761)
    assert values["original Caffe at its best"] == pytest.approx(2 * 654)
    assert values["original Caffe at its worst"] == pytest.approx(2 * 868)


def test_the_documents_show_the_results(module: Any) -> None:
    report = module("cpu_report")
    for name, content in report.sections().items():
        for path in (ROOT / "docs" / "explanation" / "benchmarks.md", ROOT / "README.md"):
            text = path.read_text()
            assert report.with_section(text, name, content) == text, f"{path}: section {name}"
    assert "<!-- cpu -->" in (ROOT / "README.md").read_text()


def test_the_results_record_their_command_and_machine(module: Any) -> None:
    record = module("record")
    for path in sorted(record.RESULTS.glob("*.json")):
        head = json.loads(path.read_text())
        assert head["command"].startswith("python benchmarks/"), path
        assert head["machine"]["processor"], path
        assert head["machine"]["revision"], path
