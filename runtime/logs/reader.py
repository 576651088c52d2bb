"""Read the log of a run: Caffe's lines, as Caffe's parse_log.py does, or JSON lines.

A log may hold several runs. A run continues the one before it if it resumes from a snapshot of that
run; otherwise the table starts again, so that rows of two runs are never joined.
"""

from __future__ import annotations

import datetime
import logging
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DataError
from prototxt_gen.reading import parse_json, read_text
from prototxt_gen.toml_tables import is_integer

log = logging.getLogger("verydeep.log")

Row = dict[str, float]
"""NumIters, Seconds, LearningRate, and one entry an output, in this order."""

_TIME = re.compile(r"[IWEF](\d{8}|\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{1,9})", re.ASCII)
_COUNT = r"(\d{1,15})(?!\d)"
_NUMBER = r"([-+]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][-+]?\d{1,9})?|-?nan|-?inf)(?![\w.+-])"
_ITERATION = re.compile(rf"Iteration {_COUNT}", re.ASCII)
_TRAIN = re.compile(rf"Train net output #\d+: (\S+) = {_NUMBER}", re.ASCII)
_TEST = re.compile(rf"Test net output #\d+: (\S+) = {_NUMBER}", re.ASCII)
_TEST_NET = re.compile(rf"Testing net \(#{_COUNT}\)", re.ASCII)
_STATE = r"(\S.*_iter_\d+\.solverstate(?:\.h5)?)"
_RESUMING = re.compile(rf"Resuming from {_STATE}", re.ASCII)
_SNAPSHOT = re.compile(
    rf"Snapshotting solver state to (?:binary proto file|HDF5 file)? *{_STATE}", re.ASCII
)
_THREAD = re.compile(r"[IWEF](?:\d{8}|\d{4}) [\d:.]{1,18} +(\d{1,15}) ", re.ASCII)
_RATE = re.compile(rf"lr = {_NUMBER}", re.ASCII)
_MOST_BYTES = 1 << 30


@dataclass
class LogTable:
    """The rows of the last run of a log: one per displayed iteration, and one per test."""

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    left_out: int = 0
    """Earlier runs of the log that have rows."""
    snapshots: set[str] = field(default_factory=set)
    """The run's snapshots: paths, or iterations in a JSON log."""

    def begin(self, iteration: int, resumed: str | None = None, continues: bool = True) -> None:
        """Start or continue a run at an iteration; drops the rows that the run computes again.

        `resumed` is the snapshot that the run resumes from, if it is known. It must be one of this
        run's, unless the log records no snapshot. Without `continues` the run is a new one.
        """
        foreign = resumed is not None and self.snapshots and not self._has_snapshot(resumed)
        if iteration and continues and not foreign:
            self.train = [row for row in self.train if row["NumIters"] < iteration]
            self.test = [row for row in self.test if row["NumIters"] < iteration]
            return
        self.left_out += bool(self.train or self.test)
        self.train, self.test, self.snapshots = [], [], set()

    def _has_snapshot(self, path: str) -> bool:
        """Whether the run wrote a snapshot; one of two paths may begin in an outer folder."""
        parts = _parts(path)
        return any(_ends_with(parts, _parts(own)) for own in self.snapshots)


def read_log(path: str | os.PathLike[str]) -> LogTable:
    """Read a Caffe log (of original Caffe, or ours) or a file of JSON lines.

    Iterations that a resumed run computed again are counted once, with the later values. Of several
    runs, the last is read.

    Raises:
        DataError: the file cannot be read, or holds no training.
    """
    try:
        lines = read_text(path, _MOST_BYTES, errors="replace").splitlines()
    except OSError as cause:
        raise DataError(
            f"{path}: the log cannot be read: {cause.strerror}; expected a Caffe log or JSON "
            "lines; check the path"
        ) from cause
    first = next((line for line in lines if line.strip()), "")
    table = _read_json(lines, str(path)) if first.startswith("{") else _read_caffe(lines)
    if not table.train and not table.test:
        raise DataError(
            f"{path}: no iteration in it; expected lines such as 'Iteration 0 (...), loss = 2.3' "
            "or JSON lines; set display in the solver, or train longer"
        )
    if table.left_out:
        log.warning("%s: the last of %d runs is read", path, table.left_out + 1)
    rates = (row["LearningRate"] for row in table.train)
    first_rate = next((rate for rate in rates if not math.isnan(rate)), math.nan)
    for row in (*table.train, *table.test):
        # The first rate applies to the rows before it as well.
        if math.isnan(row["LearningRate"]):
            row["LearningRate"] = first_rate
    return table


def _parts(path: str) -> tuple[str, ...]:
    return Path(os.path.normpath(path)).parts


def _ends_with(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether the longer of two paths ends with the shorter one."""
    count = min(len(first), len(second))
    return first[-count:] == second[-count:]


def _read_caffe(lines: list[str]) -> LogTable:
    reader = _CaffeLog()
    for line in _by_thread(lines):
        reader.read_line(line)
    return reader.table


class _CaffeLog:
    """The table of a Caffe log, and the values that later lines refer to."""

    def __init__(self) -> None:
        self.table = LogTable()
        self._iteration, self._rate, self._net = -1, math.nan, 0
        self._begins = False
        self._resumed: str | None = None
        self._start: datetime.datetime | None = None
        self._seconds = 0.0

    def read_line(self, line: str) -> None:
        """Read a line; lines before the first iteration have no values."""
        time = _time_of(line)
        if time is not None:
            self._set_clock(time, line)
        self._read_run(line)
        if self._iteration >= 0:
            self._read_values(line)

    def _set_clock(self, time: datetime.datetime, line: str) -> None:
        if self._start is None or (self._iteration < 0 and "Solving" in line):
            self._start = time
        seconds = (time - self._start).total_seconds()
        # A log without the year that passes New Year's Eve.
        self._seconds = seconds + (366 * 86400 if seconds < 0 else 0)

    def _read_run(self, line: str) -> None:
        """Read what begins a run or an iteration."""
        self._begins = self._begins or " Solving " in line
        if match := _RESUMING.search(line):
            self._resumed = match[1]
        if match := _SNAPSHOT.search(line):
            self.table.snapshots.add(match[1])
        if match := _ITERATION.search(line):
            before, self._iteration = self._iteration, int(match[1])
            # An iteration before the last one is a run of its own, with or without its first lines.
            if self._begins or self._iteration < before:
                self.table.begin(self._iteration, self._resumed)
                self._begins, self._resumed = False, None

    def _read_values(self, line: str) -> None:
        """Read a learning rate, the number of a test net, or outputs."""
        train, test = self.table.train, self.table.test
        if match := _RATE.search(line):
            self._rate = float(match[1])
            # The rate of an iteration is logged after its outputs.
            if train and train[-1]["NumIters"] == self._iteration:
                train[-1]["LearningRate"] = self._rate
        if match := _TEST_NET.search(line):
            self._net = int(match[1])
        for pattern, rows, net in ((_TRAIN, train, 0), (_TEST, test, self._net)):
            if match := pattern.search(line):
                outputs = {match[1]: float(match[2])}
                _add(rows, self._iteration, self._seconds, self._rate, outputs, net)


def _by_thread(lines: list[str]) -> list[str]:
    """The lines of each thread together: runs that wrote at the same time come one by one."""
    groups: dict[str, list[str]] = {}
    thread = ""
    for line in lines:
        if found := _THREAD.match(line):
            thread = found.group(1)
        groups.setdefault(thread, []).append(line)
    return [line for group in groups.values() for line in group]


def _add(
    rows: list[Row],
    iteration: float,
    seconds: float,
    rate: float,
    outputs: dict[str, float],
    net: int,
) -> None:
    """Add outputs to the row of an iteration; names of further test nets get a number."""
    if not rows or rows[-1]["NumIters"] != iteration:
        rows.append({"NumIters": float(iteration), "Seconds": seconds, "LearningRate": rate})
    for name, value in outputs.items():
        rows[-1][f"{name} (#{net})" if net else name] = value


def _time_of(line: str) -> datetime.datetime | None:
    match = _TIME.match(line)
    if match is None:
        return None
    date, (hour, minute, second) = match.group(1), (int(match.group(i)) for i in (2, 3, 4))
    # 2000 takes the place of a missing year: it has a 29th of February.
    year = int(date[:4]) if len(date) == 8 else 2000
    micro = int(match.group(5).ljust(6, "0")[:6])
    try:
        return datetime.datetime(
            year, int(date[-4:-2]), int(date[-2:]), hour, minute, second, micro
        )
    except ValueError:
        return None


def _read_json(lines: list[str], path: str) -> LogTable:
    table, rate = LogTable(), math.nan
    for place, line in enumerate(lines, 1):
        try:
            record = parse_json(line) if line.strip() else {}
        except ValueError as cause:
            if place == len(lines):
                continue  # a run killed in mid-line
            raise DataError(
                f"{path}:{place}: no JSON: {cause}; expected one object a line; "
                "remove the line if the disk was full"
            ) from cause
        if not isinstance(record, dict):
            continue
        event, iteration = record.get("event"), _count(record.get("iteration"))
        if iteration is None or event not in ("start", "train", "test", "snapshot"):
            continue
        if event == "start":
            table.begin(iteration, str(iteration), record.get("continues") is not False)
            continue
        if event == "snapshot":
            table.snapshots.add(str(iteration))
            continue
        rate = _number(record.get("lr")) if event == "train" else rate
        rows, net = table.train, 0
        if event == "test":
            rows, net = table.test, _count(record.get("net")) or 0
        outputs = record.get("outputs")
        numbers = {k: _number(v) for k, v in outputs.items()} if isinstance(outputs, dict) else {}
        _add(rows, iteration, _number(record.get("seconds")), rate, numbers, net)
    return table


def _count(value: Any) -> int | None:
    return value if is_integer(value) and value >= 0 else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
