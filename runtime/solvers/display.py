"""The log of a run: Caffe's lines, and JSON lines with the same values."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from prototxt_gen.errors import VerydeepError
from runtime.logs.glog import caffe_log, number
from runtime.logs.rotation import keep_old_log
from runtime.net import Net
from runtime.net.shape_net import batch_of
from runtime.solvers.hooks import Progress, RunView, Score, SolverHook, TestResult
from runtime.solvers.testing import score_line

log = logging.getLogger("verydeep.solver")


class LossSmoother:
    """The mean of the last average_loss losses. Caffe: Solver::UpdateSmoothedLoss.

    Every call of Solver.step uses a new one.
    """

    def __init__(self, average_loss: int) -> None:
        self.average_loss = average_loss
        self.value = 0.0
        self._losses: list[float] = []
        self._next = 0

    def add(self, loss: float) -> float:
        """Add a loss; returns the mean."""
        if len(self._losses) < self.average_loss:
            self._losses.append(loss)
            size = len(self._losses)
            self.value = (self.value * (size - 1) + loss) / size
        else:
            self.value += (loss - self._losses[self._next]) / self.average_loss
            self._losses[self._next] = loss
            self._next = (self._next + 1) % self.average_loss
        return self.value


class CaffeLines(SolverHook):
    """`Iteration N (X iter/s, Ys/D iters), loss = ...`, the outputs and the learning rate."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._iteration: int | None = None

    def on_start(self, solver: RunView) -> None:
        """Store the time of the first iteration."""
        if self._iteration is None:
            self._since, self._iteration = time.perf_counter(), solver.iter

    def on_iteration(self, solver: RunView, progress: Progress) -> None:
        """Log a displayed iteration."""
        if not progress.display:
            return
        now = time.perf_counter()
        seconds, done = now - self._since, progress.iteration - (self._iteration or 0)
        caffe_log(
            "solver.cpp:239",
            "Iteration %d (%s iter/s, %ss/%d iters), loss = %s",
            progress.iteration,
            number(done / seconds if seconds > 0 else 0.0),
            number(seconds),
            solver.param.display,
            number(progress.smoothed_loss),
        )
        for index, score in enumerate(progress.scores):
            caffe_log("solver.cpp:258", "%s", score_line(index, "Train", score))
        self._since, self._iteration = now, progress.iteration

    def on_rate(self, solver: RunView, iteration: int, rate: float) -> None:
        """Log the learning rate of a displayed iteration."""
        if solver.param.display and iteration % solver.param.display == 0:
            caffe_log("sgd_solver.cpp:112", "Iteration %d, lr = %s", iteration, number(rate))


def data_wait_seconds(net: Net) -> float:
    """The seconds that the layers of a net have waited for their data since they were built."""
    return float(sum(layer.wait_seconds for layer in net.layers))


class JsonLog(SolverHook):
    """The numbers of the Caffe lines, and times, as one JSON object per line.

    `event` is start, train, test, snapshot or end. A resumed run appends: its start event replaces
    the earlier lines from its iteration on, if its `continues` is true. With `fresh`, an existing
    file is kept as PATH.1.
    """

    def __init__(self, path: str | os.PathLike[str], fresh: bool = False) -> None:
        self.path = Path(path)
        self._fresh = fresh
        self.lost = False
        """Whether some lines could not be written."""
        self._stream: IO[str] | None = None
        self._start = self._since = time.perf_counter()
        self._iteration = 0
        self._waited = 0.0

    def on_solve(self, solver: RunView) -> None:
        """Open the file and write the start line.

        Raises:
            VerydeepError: the file cannot be opened.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = keep_old_log(self.path) if self._fresh else None
            continues, self._fresh = not self._fresh and solver.iter > 0, False
            if kept is not None:
                log.info("%s: the log of an earlier run is kept as %s", self.path, kept)
            self._stream = self.path.open("a", encoding="utf-8")
        except (OSError, ValueError) as cause:
            reason = cause.strerror if isinstance(cause, OSError) else cause
            raise VerydeepError(
                f"{self.path}: the JSON log cannot be written: {reason}; expected a file that can "
                "be appended to; choose another with --log_json"
            ) from cause
        self._start = self._since = time.perf_counter()
        self._iteration = solver.iter
        self._waited = data_wait_seconds(solver.net)
        self._write(
            "start",
            solver.iter,
            net=solver.net.name,
            solver=solver.rule.type,
            max_iter=solver.param.max_iter,
            batch=batch_of(solver.net) * solver.engine.shards * solver.param.iter_size,
            seed=solver.seed,
            continues=continues,
        )

    def on_rate(self, solver: RunView, iteration: int, rate: float) -> None:
        """Write a displayed iteration, with its rate."""
        progress = solver.progress
        if progress is None or not progress.display:
            return
        now, waited = time.perf_counter(), data_wait_seconds(solver.net)
        done = max(iteration - self._iteration, 0)
        images = batch_of(solver.net) * solver.engine.shards * solver.param.iter_size * done
        seconds = now - self._since
        self._write(
            "train",
            iteration,
            loss=progress.smoothed_loss,
            lr=rate,
            outputs=_outputs(progress.scores),
            images_per_second=images / seconds if seconds > 0 and done else None,
            data_wait_seconds=waited - self._waited,
        )
        self._since, self._iteration, self._waited = now, iteration, waited

    def on_test(self, solver: RunView, result: TestResult) -> None:
        """Write the mean outputs of a test."""
        self._write(
            "test",
            result.iteration,
            net=result.net_id,
            loss=result.loss,
            outputs=_outputs(result.scores),
        )

    def on_snapshot(self, solver: RunView, files: tuple[Path, ...]) -> None:
        """Write the files of a snapshot."""
        self._write("snapshot", solver.iter, files=[str(path) for path in files])

    def on_end(self, solver: RunView, reason: str) -> None:
        """Write the end line and close the file."""
        self._write("end", solver.iter, reason=reason)
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream = None

    def _write(self, event: str, iteration: int, **values: Any) -> None:
        if self._stream is None:
            return
        seconds = round(time.perf_counter() - self._start, 6)
        record = {"event": event, "iteration": iteration, **values, "seconds": seconds}
        try:
            self._stream.write(json.dumps(finite_json(record)) + "\n")
            self._stream.flush()
        except OSError as cause:
            # A full disk does not end the run.
            log.warning("%s: the JSON log ends here: %s", self.path, cause.strerror)
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream, self.lost = None, True


def _outputs(scores: Iterable[Score]) -> dict[str, float]:
    outputs: dict[str, float] = {}
    for score in scores:
        outputs.setdefault(score.name, score.value)
    return outputs


def finite_json(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: finite_json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
