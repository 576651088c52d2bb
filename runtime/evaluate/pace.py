"""Progress and time left of an evaluation: a bar for a person who watches, else a line at times."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from data_prep.progress import show_progress
from runtime.logs.pace import Pace, format_duration

log = logging.getLogger("verydeep.evaluate")

Progress = Callable[[int, int], None]
_INTERVAL = 30.0
_FIRST = 5.0


@contextlib.contextmanager
def watched(what: str, interval: float = _INTERVAL) -> Iterator[Progress]:
    """Give a function to be called with the images done and their total."""
    if sys.stderr.isatty():
        with show_progress(what) as bar:
            yield bar or (lambda done, total: None)
        return
    pace, state = Pace(0, 0, time.monotonic()), {"next": time.monotonic() + min(_FIRST, interval)}

    def say(done: int, total: int) -> None:
        now = time.monotonic()
        if now < state["next"] or done >= total:
            return
        state["next"] = now + interval
        pace.stop = total
        left = pace.seconds_left(done, now)
        if left is not None:
            log.info("%s: %d of %d images, about %s left", what, done, total, format_duration(left))

    yield say
