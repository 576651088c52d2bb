"""Progress and remaining time of an evaluation: a bar on a terminal, else log lines."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from data_prep.progress import Progress, show_progress
from runtime.logs.pace import Pace, format_duration

log = logging.getLogger("verydeep.evaluate")

_INTERVAL = 30.0
_FIRST = 5.0


@contextlib.contextmanager
def log_progress(description: str, interval: float = _INTERVAL) -> Iterator[Progress]:
    """Yield a function that takes the number of finished images and the number of all images.

    Units: `interval` between log lines in seconds.
    """
    if sys.stderr.isatty():
        with show_progress(description) as bar:
            yield bar or (lambda done, total: None)
        return
    pace, next_line = Pace(0, 0, time.monotonic()), time.monotonic() + min(_FIRST, interval)

    def write(done: int, total: int) -> None:
        nonlocal next_line
        now = time.monotonic()
        if now < next_line or done >= total:
            return
        next_line = now + interval
        pace.stop = total
        left = pace.seconds_left(done, now)
        if left is not None:
            duration = format_duration(left)
            log.info("%s: %d of %d images, about %s left", description, done, total, duration)

    yield write
