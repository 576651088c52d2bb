"""Reads what a run has logged: Caffe's lines, as Caffe's parse_log.py does, or JSON lines."""

from __future__ import annotations

import datetime
import math
import os
import re
from dataclasses import dataclass, field
from typing import Any

from prototxt_gen.errors import DataError
from prototxt_gen.reading import parse_json, read_text
from prototxt_gen.toml_tables import is_integer

Row = dict[str, float]
"""NumIters, Seconds, LearningRate, and one entry an output, in this order."""

_TIME = re.compile(r"[IWEF](\d{8}|\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{1,9})", re.ASCII)
_COUNT = r"(\d{1,15})(?!\d)"
_NUMBER = r"([-+]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][-+]?\d{1,9})?|-?nan|-?inf)(?![\w.+-])"
_ITERATION = re.compile(rf"Iteration {_COUNT}", re.ASCII)
_TRAIN = re.compile(rf"Train net output #\d+: (\S+) = {_NUMBER}", re.ASCII)
_TEST = re.compile(rf"Test net output #\d+: (\S+) = {_NUMBER}", re.ASCII)
_TEST_NET = re.compile(rf"Testing net \(#{_COUNT}\)", re.ASCII)
_RATE = re.compile(rf"lr = {_NUMBER}", re.ASCII)
_MOST_BYTES = 1 << 30


@dataclass
class LogTable:
    """The rows of a log: one an iteration shown, one a test."""

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)

    def forget(self, iteration: int) -> None:
        """Drop what a run that starts at this iteration does again."""
        self.train = [row for row in self.train if row["NumIters"] < iteration]
        self.test = [row for row in self.test if row["NumIters"] < iteration]


def read_log(path: str | os.PathLike[str]) -> LogTable:
    """Read a Caffe log (of original Caffe, or ours) or a file of JSON lines.

    What a resumed run has done again counts once: the later time.

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
            "or JSON lines; was display 0, or the run not begun?"
        )
    rates = (row["LearningRate"] for row in table.train)
    first_rate = next((rate for rate in rates if not math.isnan(rate)), math.nan)
    for row in (*table.train, *table.test):
        # What comes before the first rate was made with it as well.
        if math.isnan(row["LearningRate"]):
            row["LearningRate"] = first_rate
    return table


def _read_caffe(lines: list[str]) -> LogTable:
    table, rate, net = LogTable(), math.nan, 0
    iteration, seconds, begins = -1, 0.0, False
    start: datetime.datetime | None = None
    for line in lines:
        time = _time_of(line)
        if time is not None:
            if start is None or (iteration < 0 and "Solving" in line):
                start = time
            seconds = (time - start).total_seconds()
            # A log without the year that passes New Year's Eve.
            seconds += 366 * 86400 if seconds < 0 else 0
        begins = begins or " Solving " in line
        if found := _ITERATION.search(line):
            iteration = int(found.group(1))
            if begins:
                table.forget(iteration)
                begins = False
        if iteration < 0:
            continue
        if found := _RATE.search(line):
            rate = float(found.group(1))
            # The rate of an iteration is logged after its outputs.
            if table.train and table.train[-1]["NumIters"] == iteration:
                table.train[-1]["LearningRate"] = rate
        if found := _TEST_NET.search(line):
            net = int(found.group(1))
        for pattern, rows, net_id in ((_TRAIN, table.train, 0), (_TEST, table.test, net)):
            if found := pattern.search(line):
                outputs = {found.group(1): float(found.group(2))}
                _add(rows, iteration, seconds, rate, outputs, net_id)
    return table


def _add(
    rows: list[Row],
    iteration: float,
    seconds: float,
    rate: float,
    outputs: dict[str, float],
    net: int,
) -> None:
    """Enter outputs into the row of an iteration; those of further test nets bear a number."""
    if not rows or rows[-1]["NumIters"] != iteration:
        rows.append({"NumIters": float(iteration), "Seconds": seconds, "LearningRate": rate})
    for name, value in outputs.items():
        rows[-1][f"{name} (#{net})" if net else name] = value


def _time_of(line: str) -> datetime.datetime | None:
    found = _TIME.match(line)
    if found is None:
        return None
    date, (hour, minute, second) = found.group(1), (int(found.group(i)) for i in (2, 3, 4))
    # 2000 stands for a year that is not said: it has a 29th of February.
    year = int(date[:4]) if len(date) == 8 else 2000
    micro = int(found.group(5).ljust(6, "0")[:6])
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
        if iteration is None or event not in ("start", "train", "test"):
            continue
        if event == "start":
            table.forget(iteration)
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
