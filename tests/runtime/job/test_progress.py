"""The bar and the estimate of the time left."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console

from runtime.job.progress import (
    ProgressBar,
    TimeLeft,
    progress_hook,
    time_left_line,
)
from runtime.logs.pace import Pace, format_duration
from runtime.logs.reader import _ITERATION, _TEST, _TRAIN
from tests.runtime.solvers.toy import CLASSIFIER, make_solver


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3 * 3600 + 720, "3 h 12 min"),
        (2 * 86400 + 3 * 3600, "2 d 03 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_pace_of_the_run_so_far() -> None:
    pace = Pace(100, 500, now=10.0)
    assert pace.seconds_left(100, 20.0) is None
    assert pace.seconds_left(200, 30.0) == pytest.approx(60.0)
    assert pace.per_second(200, 30.0) == pytest.approx(5.0)
    assert pace.seconds_left(500, 90.0) == 0


def test_the_estimate_is_no_line_of_caffes() -> None:
    line = time_left_line(Pace(0, 2000, 0.0), 400, 130.0, 32.0)
    assert line == "About 2 min 10 s left: 400 of 2000 iterations done, 12.5 a second"
    line = time_left_line(Pace(0, 2000, 0.0), 400, 130.0, 32.0, 64)
    assert line.endswith("12.5 a second, 800 images/s")
    for pattern in (_ITERATION, _TRAIN, _TEST):
        assert not pattern.search(line)


def test_the_estimate_comes_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep.solver")
    make_solver("max_iter: 5", hooks=(TimeLeft(interval=0.0),)).solve()
    assert sum(" left: " in message for message in caplog.messages) == 5
    caplog.clear()
    make_solver("max_iter: 5", hooks=(TimeLeft(),)).solve()
    assert not any(" left: " in message for message in caplog.messages)


def test_the_bar_shows_where_the_run_is() -> None:
    out = io.StringIO()
    bar = ProgressBar(Console(file=out, force_terminal=True, width=120))
    fields = "max_iter: 3 test_iter: 1 test_interval: 1"
    make_solver(fields, CLASSIFIER, 64, hooks=(bar,)).solve()
    shown = out.getvalue()
    for words in ("3/3", "loss ", "lr 0.1", "accuracy ", "images/s", "0 s left"):
        assert words in shown, words


def test_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress_hook(), TimeLeft)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(progress_hook(), ProgressBar)
