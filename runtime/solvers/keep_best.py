"""KeepBest: keeps the weights of the best test, and stops a run that no longer improves."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from prototxt_gen.errors import SnapshotError, UsageError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.reading import read_json, short_repr
from prototxt_gen.toml_tables import is_integer, is_number
from runtime.logs.glog import number
from runtime.net import Net
from runtime.solvers.hooks import RunView, SolverHook, TestResult
from runtime.weights.net_weights import save

log = logging.getLogger("verydeep.solver")


@dataclass(frozen=True)
class BestTest:
    """The best test so far, as in the file PREFIX_best.json."""

    metric: str
    value: float
    iteration: int
    tests_since: int = 0
    """Tests without an improvement since then."""


class KeepBest(SolverHook):
    """Watches an output of the test nets: losses are better when lower, others when higher.

    With a prefix, the weights of the best test are PREFIX_best.caffemodel. A run resumed from a
    snapshot continues with PREFIX_best.json. With `patience`, the run stops after so many tests in
    a row without an improvement.
    """

    def __init__(self, metric: str, keep: bool, patience: int | None, force: bool = False) -> None:
        self.metric, self.keep, self.patience, self.force = metric, keep, patience, force
        self.best: BestTest | None = None
        self._prefix = ""

    @property
    def wants_stop(self) -> bool:
        """Whether the score has not improved for `patience` tests."""
        return (
            self.patience is not None
            and self.best is not None
            and self.best.tests_since >= self.patience
        )

    def on_solve(self, solver: RunView) -> None:
        """Read the best test of the run that is resumed, and check that the files are its own.

        Raises:
            UsageError: the solver has no snapshot_prefix, or no test net has the output.
            SnapshotError: a file of another program has the name, or PREFIX_best.json is damaged.
        """
        self.check_outputs([net.outputs for net in solver.test_nets])
        self._prefix = str(solver.param.snapshot_prefix)
        if not self._prefix:
            raise UsageError(
                "--keep-best, --stop-after: the solver has no snapshot_prefix; expected one, which "
                "names the files; add it to the solver"
            )
        record = self._path("json")
        if os.path.lexists(record):
            best = read_best(record)
            if solver.iter > 0 and best.metric == self.metric and best.iteration <= solver.iter:
                self.best = best
        elif os.path.lexists(self._path("caffemodel")) and self.keep and not self.force:
            raise SnapshotError(
                f"{self._path('caffemodel')}: exists, and this program did not write it; expected "
                f"a free name, or {record.name} next to it; remove it, or replace it with --force"
            )

    def check_outputs(self, outputs: Sequence[Sequence[str]]) -> None:
        """Check that a test net has the output.

        Raises:
            UsageError: none has.
        """
        names = list(dict.fromkeys(name for of_net in outputs for name in of_net))
        if self.metric not in names:
            raise UsageError(
                f"'{self.metric}': no output of a test net; expected one of "
                f"{', '.join(names) or 'none, as there is no test net'}; correct --keep-best or "
                "--stop-metric"
            )

    def on_test(self, solver: RunView, result: TestResult) -> None:
        """Compare the result of a test; one with NaN or infinity is no improvement."""
        score = next((score for score in result.scores if score.name == self.metric), None)
        if score is None:
            return
        sign = -1 if score.loss_weight else 1
        valid = not result.not_finite and math.isfinite(score.value)
        if valid and (self.best is None or sign * score.value > sign * self.best.value):
            self.best = BestTest(self.metric, score.value, result.iteration)
            self._save(solver.net)
        elif self.best is not None and result.iteration > self.best.iteration:
            since = self.best.tests_since + 1
            self.best = BestTest(self.metric, self.best.value, self.best.iteration, since)
            self._write_record()
            if self.wants_stop:
                log.info(
                    "%s has not improved for %d tests (best: %s at iteration %d): the run stops",
                    self.metric,
                    since,
                    number(self.best.value),
                    self.best.iteration,
                )

    def _save(self, net: Net) -> None:
        if self.keep:
            path = self._path("caffemodel")
            save(net, path)
            assert self.best is not None
            log.info("Best %s so far, %s: %s", self.metric, number(self.best.value), path)
        self._write_record()

    def _write_record(self) -> None:
        assert self.best is not None
        text = json.dumps(asdict(self.best)) + "\n"
        atomic_write_text(self._path("json"), text, SnapshotError)

    def _path(self, suffix: str) -> Path:
        return Path(f"{self._prefix}_best.{suffix}")


def read_best(path: Path) -> BestTest:
    """Read PREFIX_best.json.

    Raises:
        SnapshotError: it cannot be read, or has other keys or values.
    """
    try:
        values: Any = read_json(path, regular=True)
        valid = (
            isinstance(values, dict)
            and set(values) == {field.name for field in fields(BestTest)}
            and isinstance(values["metric"], str)
            and is_number(values["value"])
            and all(is_integer(values[key]) for key in ("iteration", "tests_since"))
        )
    except (OSError, ValueError) as cause:
        raise SnapshotError(
            f"{path}: cannot be read: {cause}; expected the record of the best test; remove it"
        ) from cause
    if not valid:
        raise SnapshotError(
            f"{path}: no record of a best test; expected metric, value, iteration and tests_since, "
            f"got {short_repr(values)}; remove it, or choose another snapshot_prefix"
        )
    return BestTest(**values)
