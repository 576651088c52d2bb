"""glog's flags and variables, through the command line."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from runtime.cli.main import main

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
