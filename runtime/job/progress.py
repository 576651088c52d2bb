"""The progress of a run and the time left: a bar on a terminal, otherwise occasional log lines."""

from __future__ import annotations

import logging
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from runtime.logs.glog import number
from runtime.logs.pace import Pace, format_duration
from runtime.net.shape_net import batch_of
from runtime.solvers.hooks import Progress as Iteration
from runtime.solvers.hooks import RunView, Score, SolverHook, TestResult

log = logging.getLogger("verydeep.solver")


class TimeLeft(SolverHook):
    """Logs an estimate of the time left every `interval` seconds."""

    def __init__(self, interval: float = 60.0) -> None:
        self.interval = interval
        self._pace: Pace | None = None
        self._images = 0
        self._next = 0.0

    def on_solve(self, solver: RunView) -> None:
        """Start the clock; the first estimate is logged early."""
        now = time.monotonic()
        self._pace = Pace(solver.iter, solver.param.max_iter, now)
        self._images = _images_of(solver)
        self._next = now + min(self.interval, 10.0)

    def on_iteration_end(self, solver: RunView) -> None:
        """Log the time left if the interval has passed."""
        now = time.monotonic()
        if self._pace is None or now < self._next:
            return
        self._next = now + self.interval
        left = self._pace.seconds_left(solver.iter, now)
        if left is not None:
            log.info("%s", time_left_line(self._pace, solver.iter, left, now, self._images))


def time_left_line(pace: Pace, iteration: int, left: float, now: float, images: int = 0) -> str:
    """The log line, in a form that tools for Caffe's logs do not parse as one of Caffe's lines.

    `images` is the number of images of an iteration; 0 if it is unknown.
    """
    rate = pace.per_second(iteration, now)
    words = f", {number(rate * images)} images/s" if images else ""
    return (
        f"About {format_duration(left)} left: {iteration} of {pace.stop} iterations done, "
        f"{number(rate)} a second{words}"
    )


def _images_of(solver: RunView) -> int:
    """The images of one iteration."""
    return batch_of(solver.net) * solver.engine.shards * int(solver.param.iter_size)


class ProgressBar(SolverHook):
    """A bar on the terminal: iteration, loss, rate, last test score, images per second, time left.

    Log lines are printed above it.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console if console is not None else Console(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._pace: Pace | None = None
        self._score = ""
        self._images = 0

    def on_solve(self, solver: RunView) -> None:
        """Start the bar."""
        self._pace = Pace(solver.iter, solver.param.max_iter, time.monotonic())
        self._images = _images_of(solver)
        self._bar = Progress(
            TextColumn("[bold]{task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            console=self.console,
            redirect_stdout=False,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(
            "", total=solver.param.max_iter, completed=solver.iter, status=""
        )
        self._bar.start()

    def on_iteration(self, solver: RunView, progress: Iteration) -> None:
        """Update the numbers."""
        if self._bar is None or self._pace is None:
            return
        now = time.monotonic()
        left = self._pace.seconds_left(progress.iteration, now)
        parts = [f"loss {number(progress.smoothed_loss)}", f"lr {number(solver.rate)}"]
        if self._score:
            parts.append(self._score)
        pace = self._pace.per_second(progress.iteration, now)
        if pace and self._images:
            parts.append(f"{pace * self._images:.0f} images/s")
        if left is not None:
            parts.append(f"{format_duration(left)} left")
        self._bar.update(self._task, completed=progress.iteration, status=" | ".join(parts))

    def on_test(self, solver: RunView, result: TestResult) -> None:
        """Store the first score of the first test net."""
        if result.net_id == 0 and result.scores:
            self._score = _short(result.scores)

    def on_end(self, solver: RunView, reason: str) -> None:
        """Stop the bar, which remains on the terminal."""
        if self._bar is not None:
            self._bar.update(self._task, completed=solver.iter)
            self._bar.stop()
            self._bar = None


def _short(scores: tuple[Score, ...]) -> str:
    first = next((score for score in scores if not score.loss_weight), scores[0])
    return f"{first.name} {number(first.value)}"


def progress_hook() -> SolverHook:
    """A ProgressBar if standard error is a terminal, else TimeLeft."""
    return ProgressBar() if sys.stderr.isatty() else TimeLeft()
