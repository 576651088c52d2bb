"""glog's flags and variables, through the command line."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from runtime.cli.main import main
from runtime.logs.glog import start_log_files

NET = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 2 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 3 } }
"""


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that logs, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    return ["time", "--model", "net.prototxt", "--iterations", "1"]


def info_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.log.INFO.*") if not path.is_symlink()]


@pytest.mark.parametrize(
    ("flags", "lines", "files"),
    [
        ("", True, 0),
        ("-log_dir logs", True, 1),
        ("--log-dir=logs --alsologtostderr", True, 1),
        ("--log_dir=logs --logtostderr", True, 0),
        ("--log_dir=logs --logtostderr=false", True, 1),
        ("--log_dir=logs --noalsologtostderr", False, 1),
        ("--log_dir=logs --alsologtostderr=false", False, 1),
        ("--minloglevel=2", False, 0),
        ("-minloglevel 1 -log_dir logs", False, 0),
        ("--minloglevel=WARNING", False, 0),
    ],
)
def test_flags(
    flags: str,
    lines: bool,
    files: int,
    timed: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in ([*timed, *flags.split()], [*flags.split(), *timed]):
        for path in info_files(tmp_path / "logs"):
            path.unlink()
        assert main(words) == 0
        assert ("Benchmark begins" in capsys.readouterr().err) is lines
        assert len(info_files(tmp_path / "logs")) == files
    assert not [name for name in os.environ if name.startswith("GLOG_")]


def test_a_flag_overrules_its_variable(
    timed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "2")
    assert main(timed) == 0
    assert capsys.readouterr().err == ""
    assert main([*timed, "--minloglevel=0"]) == 0
    assert "Benchmark begins" in capsys.readouterr().err


def test_wrong_severities(
    timed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*timed, "--minloglevel=many"])
    assert caught.value.code == 2
    assert "--minloglevel: expected 0 (INFO), 1 (WARNING)" in capsys.readouterr().err
    monkeypatch.setenv("GLOG_minloglevel", "many")
    assert main(timed) == 2
    assert "GLOG_minloglevel: expected 0 (INFO)" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["", "--iterations 0", "--model missing.prototxt"])
def test_the_log_is_closed_at_the_end(words: str, timed: list[str]) -> None:
    assert main([*timed, *words.split(), "-log_dir", "logs"]) in (0, 2)
    log = logging.getLogger("verydeep")
    assert log.propagate and not log.handlers and log.level == logging.NOTSET


@pytest.mark.parametrize("fresh", [True, False])
def test_the_log_of_a_fresh_run_does_not_continue_an_old_one(
    fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "run.log"
    log.write_text("old\n")
    result = tmp_path / "result.json"
    values = {"net": "A", "top1_error": 0, "top5_error": 0, "held_out_images": 1}
    result.write_text(json.dumps({**values, "iterations": 1, "seconds": 1}))

    def run_job(*args: object) -> Path:
        logging.getLogger("verydeep.job").info("prepared")
        start_log_files(fresh)
        return result

    monkeypatch.setattr("runtime.job.run.run_job", run_job)
    assert main(["run", "--out", str(tmp_path)]) == 0
    assert log.read_text().startswith("old\n") is not fresh
    assert "prepared" in log.read_text()
    assert (tmp_path / "run.log.1").exists() is fresh
