"""The pace of a run, and durations as text."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """`2 d 03 h`, `3 h 12 min`, `4 min 05 s` or `12 s`."""
    whole = max(round(seconds), 0)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours:02d} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


class Pace:
    """Iterations done, and seconds left at the pace of the run so far."""

    def __init__(self, start: int, stop: int, now: float) -> None:
        self.start = start
        self.stop = stop
        self.since = now

    def seconds_left(self, iteration: int, now: float) -> float | None:
        """None before the first iteration is done."""
        done = iteration - self.start
        return (now - self.since) / done * (self.stop - iteration) if done > 0 else None

    def per_second(self, iteration: int, now: float) -> float:
        lapse = now - self.since
        return (iteration - self.start) / lapse if lapse > 0 else 0.0
