"""Progress without a terminal: log lines with the remaining time."""

from __future__ import annotations

import logging
import sys

import pytest

from runtime.evaluate import pace
from runtime.evaluate.pace import log_progress


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_log_lines_have_the_remaining_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    name = "VGG-D, dense, Q = 256"
    with caplog.at_level(logging.INFO), log_progress(name, interval=30) as progress:
        for done in range(1, 101):
            clock.now += 1
            progress(done, 100)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "VGG-D, dense, Q = 256: 5 of 100 images, about 1 min 35 s left",
        "VGG-D, dense, Q = 256: 35 of 100 images, about 1 min 05 s left",
        "VGG-D, dense, Q = 256: 65 of 100 images, about 35 s left",
        "VGG-D, dense, Q = 256: 95 of 100 images, about 5 s left",
    ]
