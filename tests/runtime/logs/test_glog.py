"""glog's format, as Caffe's own log tools read it."""

from __future__ import annotations

import datetime
import logging
import re
import sys
from pathlib import Path

import pytest

from prototxt_gen.errors import VerydeepError
from runtime.logs.glog import (
    GlogFormatter,
    caffe_log,
    close_logging,
    lost_log_files,
    number,
    setup_logging,
)

PREFIX = r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.]+:\d+\] "


def _record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("verydeep", level, "/x/net.py", 68, message, (), None)
    record.created = datetime.datetime(2026, 2, 10, 13, 39, 22, 381027).timestamp()
    record.process = 25210
    for key, value in extra.items():
        setattr(record, key, value)
    return record


def test_the_line_of_caffes_documentation() -> None:
    record = _record("Iteration 100, lr = 0.00992565", caffe_at="solver.cpp:204")
    assert GlogFormatter().format(record) == (
        "I0210 13:39:22.381027 25210 solver.cpp:204] Iteration 100, lr = 0.00992565"
    )


def test_what_caffes_extract_seconds_takes_from_a_line() -> None:
    # Its way: month in line[1:3], day in line[3:5], and the time as the second word.
    words = GlogFormatter().format(_record("Solving toy")).split()
    assert (int(words[0][1:3]), int(words[0][3:])) == (2, 10)
    assert words[1] == "13:39:22.381027"


def test_other_records_name_their_own_place_and_severity() -> None:
    line = GlogFormatter().format(_record("careful", logging.WARNING))
    assert line.startswith("W0210 ") and line.endswith(" net.py:68] careful")
    assert GlogFormatter().format(_record("x", logging.ERROR)).startswith("E")
    short = _record("x")
    short.process = 7
    assert "     7 net.py" in GlogFormatter().format(short)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.8702104, "1.87021"),
        (1.0, "1"),
        (0.02, "0.02"),
        (0.000123456789, "0.000123457"),
        (1e-5, "1e-05"),
        (123456.7, "123457"),
        (1234567.0, "1.23457e+06"),
        (0.1 + 0.2, "0.3"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_are_those_of_a_cpp_stream(value: float, text: str) -> None:
    assert number(value) == text


def test_a_command_line_logs_to_stderr_and_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "train.log"
    try:
        setup_logging(log_file=path)
        setup_logging(log_file=path)
        caffe_log("solver.cpp:289", "Solving %s", "toy")
        logging.getLogger("verydeep.net").info("Creating Layer data")
    finally:
        close_logging()
    caffe_log("solver.cpp:289", "unheard")
    lines = capsys.readouterr().err.splitlines()
    assert lines == path.read_text().splitlines() and len(lines) == 2
    assert re.fullmatch(PREFIX + "Solving toy", lines[0])
    assert re.fullmatch(PREFIX + "Creating Layer data", lines[1])


def test_a_full_disk_ends_the_log_file_and_not_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        setup_logging(log_file="/dev/full")
        assert not lost_log_files()
        for number_of_line in range(3):
            caffe_log("solver.cpp:239", "Iteration %d", number_of_line)
        assert lost_log_files()
    finally:
        close_logging()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and "Traceback" not in "".join(lines)
    (lost,) = (line for line in lines if line.startswith("E"))
    assert "/dev/full: the log cannot be written: No space left on device; expected room" in lost
    assert not lost_log_files()


def test_standard_error_that_is_full_or_closed_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.log"
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        for stream in (full, None):
            monkeypatch.setattr(sys, "stderr", stream)
            try:
                setup_logging(log_file=path)
                caffe_log("solver.cpp:289", "Solving toy")
            finally:
                close_logging()
        full.close = lambda: None  # type: ignore[method-assign]
    assert path.read_text().count("Solving toy\n") == 2


def test_names_of_any_bytes_and_length_are_logged(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    try:
        setup_logging(log_file=path)
        caffe_log("net.cpp:84", "Creating Layer %s", "n\udcff\ud800\x1b[2J")
        caffe_log("net.cpp:84", "Creating Layer %s", "x" * 300_000)
        caffe_log("solver.cpp:45", "Initializing solver: \n%s", "\n".join("a" * 5000))
    finally:
        close_logging()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].endswith("Creating Layer n\\udcff\\ud800\\x1b[2J")
    assert len(lines[1]) < 400 and len(lines) == 5003


def test_a_log_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        VerydeepError, match=r"file/x: the log cannot be written: .*choose another path"
    ):
        setup_logging(log_file=tmp_path / "file" / "x")
    close_logging()


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 300])
def test_a_log_file_that_can_have_no_such_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(VerydeepError, match=r"the log cannot be written: .*choose another path"):
        setup_logging(log_file=f"{tmp_path}/{name}")
    close_logging()
