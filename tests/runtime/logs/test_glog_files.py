"""glog's settings and its log files."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prototxt_gen.errors import VerydeepError
from runtime.logs.glog import caffe_log, close_logging, lost_log_files, setup_logging
from runtime.logs.glog_files import program_name
from runtime.logs.glog_settings import LOG_FLAGS, PREFIX, read_severity, settings_from_environment
from runtime.logs.reader import read_log

LINES = (logging.INFO, logging.WARNING, logging.ERROR)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in LOG_FLAGS:
        monkeypatch.delenv(PREFIX + name, raising=False)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/caffe"])
    yield
    close_logging()


def write_lines() -> None:
    for level in LINES:
        caffe_log("net.cpp:1", "level %d", level, level=level)


def levels(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"level (\d+)", text)]


def test_files_have_glogs_names_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path / "new" / "folder"))
    setup_logging()
    write_lines()
    folder = tmp_path / "new" / "folder"
    names = sorted(path.name for path in folder.iterdir() if not path.is_symlink())
    pattern = rf"caffe\.[^/]+\.log\.(ERROR|INFO|WARNING)\.\d{{8}}-\d{{6}}\.{os.getpid()}"
    assert [re.fullmatch(pattern, name)[1] for name in names] == ["ERROR", "INFO", "WARNING"]
    for severity, least in (("INFO", 20), ("WARNING", 30), ("ERROR", 40)):
        text = (folder / f"caffe.{severity}").read_text()
        assert text.startswith("Log file created at: 2")
        assert "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n" in text
        assert levels(text) == [level for level in LINES if level >= least]


def test_no_file_without_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path))
    setup_logging()
    close_logging()
    assert list(tmp_path.iterdir()) == []


def test_the_link_leads_to_the_latest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path))
    (tmp_path / "caffe.INFO").symlink_to("gone")
    setup_logging()
    write_lines()
    assert levels((tmp_path / "caffe.INFO").read_text()) == list(LINES)


@pytest.mark.parametrize(
    ("variables", "on_stderr", "in_file"),
    [
        ({}, LINES, LINES),
        ({"minloglevel": "1"}, LINES[1:], LINES[1:]),
        ({"minloglevel": "ERROR"}, LINES[2:], LINES[2:]),
        ({"minloglevel": "3"}, (), None),
        ({"logtostderr": "1"}, LINES, None),
        ({"logtostderr": "0"}, LINES, LINES),
        ({"alsologtostderr": "0"}, LINES[2:], LINES),
        ({"alsologtostderr": "false", "stderrthreshold": "1"}, LINES[1:], LINES),
        ({"alsologtostderr": "0", "logtostderr": "true"}, LINES, None),
    ],
)
def test_what_each_setting_does(
    variables: dict[str, str],
    on_stderr: tuple[int, ...],
    in_file: tuple[int, ...] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(f"GLOG_{name}", value)
    setup_logging()
    write_lines()
    assert tuple(levels(capsys.readouterr().err)) == on_stderr
    path = tmp_path / "caffe.INFO"
    assert (tuple(levels(path.read_text())) if path.exists() else None) == in_file


def test_a_verb_that_logs_less_does_not_log_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "0")
    setup_logging(logging.WARNING)
    write_lines()
    assert levels(capsys.readouterr().err) == [30, 40]


def test_the_readers_of_logs_read_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path))
    setup_logging()
    caffe_log("solver.cpp:279", "Solving toy")
    caffe_log("solver.cpp:218", "Iteration 0 (0 iter/s, 0s/1 iters), loss = 2.5")
    caffe_log("solver.cpp:237", "    Train net output #0: loss = 2.5 (* 1 = 2.5 loss)")
    caffe_log("sgd_solver.cpp:105", "Iteration 0, lr = 0.01")
    table = read_log(tmp_path / "caffe.INFO")
    assert table.train[0]["LearningRate"] == 0.01


@pytest.mark.parametrize("variable", ["minloglevel", "stderrthreshold"])
def test_a_severity_that_is_none(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"GLOG_{variable}", "4")
    with pytest.raises(VerydeepError, match=rf"GLOG_{variable}: expected 0 \(INFO\).*, got '4'"):
        settings_from_environment()


def test_severities_by_number_and_name() -> None:
    assert [read_severity(text) for text in ("0", "WARNING", "error", " 3")] == [0, 1, 2, 3]
    with pytest.raises(argparse.ArgumentTypeError):
        read_severity("-1")


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path / "file" / "logs"))
    with pytest.raises(VerydeepError, match="log files cannot be written: Not a directory; exp"):
        setup_logging()


def test_a_file_that_cannot_be_made_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    monkeypatch.setenv("GLOG_log_dir", str(folder))
    setup_logging()
    folder.rmdir()
    write_lines()
    shown = capsys.readouterr().err
    assert shown.count("the log cannot be written: No such file or directory") == 3
    assert lost_log_files() and levels(shown) == list(LINES)


@pytest.mark.parametrize(
    ("command", "name"),
    [("/x/caffe", "caffe"), ("/x/runtime/__main__.py", "verydeep"), ("-c", "verydeep")],
)
def test_the_name_of_the_program(command: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [command])
    assert program_name() == name
