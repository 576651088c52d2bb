"""Plateau: divides the learning rate when a test score stops improving, as in the paper."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from prototxt_gen.errors import ProtoError, SnapshotError
from prototxt_gen.sidecar import INT_MAX, PlateauOptions
from prototxt_gen.toml_tables import is_integer, is_number
from runtime.logs.glog import number
from runtime.solvers.hooks import TestResult

log = logging.getLogger("verydeep.solver")


@dataclass
class PlateauState:
    """The state of a Plateau in a snapshot."""

    best: float | None = None
    best_iteration: int = 0
    bad_tests: int = 0
    """Tests since the last improvement or drop of the rate."""
    drops: int = 0
    finished: bool = False

    @classmethod
    def from_json(cls, values: Any, source: str) -> PlateauState:
        """Read a value of `to_json`; `source` is its file.

        Raises:
            SnapshotError: keys are missing or unknown, or have values of other types.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names or not _is_valid(values):
            raise SnapshotError(
                f"{source}: the plateau history is damaged; expected the keys {sorted(names)} with "
                f"a score, counts and a boolean, got {str(values)[:200]}; use the snapshot before "
                "it"
            )
        best = values["best"]
        if isinstance(best, float) and not math.isfinite(best):
            # Earlier versions stored such scores.
            best = None
        return cls(**{**values, "best": best})

    def to_json(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def _is_valid(values: dict[str, Any]) -> bool:
    best = values["best"]
    counts = [values[name] for name in ("best_iteration", "bad_tests", "drops")]
    return (
        all(is_integer(count) and 0 <= count <= INT_MAX for count in counts)
        and isinstance(values["finished"], bool)
        and (best is None or isinstance(best, float) or is_number(best))
    )


class Plateau:
    """Divides the learning rate when a score of a test net stops improving. Paper: section 3.1."""

    def __init__(self, options: PlateauOptions, base_lr: float) -> None:
        self.options = options
        self.base_lr = base_lr
        self.state = PlateauState()

    @property
    def rate(self) -> float:
        """The current learning rate."""
        return float(self.base_lr * self.options.factor**self.state.drops)

    @property
    def finished(self) -> bool:
        """Whether training ends, because the score has not improved since the last drop."""
        return self.state.finished and self.options.stop_after_last

    def check_metric(self, outputs: Sequence[Sequence[str]]) -> None:
        """Check that a test net has the metric among its outputs.

        Raises:
            ProtoError: none has.
        """
        names = sorted({name for net_outputs in outputs for name in net_outputs})
        if self.options.metric not in names:
            listed = ", ".join(names) or "none: there is no test net"
            raise ProtoError(
                f"schedule: metric '{self.options.metric}' is no output of a test net; expected "
                f"one of them ({listed}); change metric in the sidecar, or set test_iter and "
                "test_interval in the solver"
            )

    def observe(self, iteration: int, result: TestResult) -> None:
        """Update the state by the result of a test that has the metric.

        A result with NaN or infinity is no improvement.
        """
        value = next((s.value for s in result.scores if s.name == self.options.metric), None)
        if value is None:
            return
        state, metric = self.state, self.options.metric
        if not result.not_finite and self._improves(value):
            state.best, state.best_iteration, state.bad_tests = value, iteration, 0
            return
        state.bad_tests += 1
        if state.bad_tests < self.options.patience:
            return
        best = number(state.best if state.best is not None else value)
        if state.drops < self.options.max_drops:
            state.drops += 1
            state.bad_tests = 0
            log.info(
                "Plateau Status: Iteration %d, step = %d: %s has not improved on %s since %d; "
                "lr = %s",
                iteration,
                state.drops,
                metric,
                best,
                state.best_iteration,
                number(self.rate),
            )
        elif not state.finished:
            state.finished = True
            log.info("Plateau Status: %s has not improved on %s after the last drop", metric, best)

    def _improves(self, value: float) -> bool:
        best = self.state.best
        if best is None:
            return True
        gain = value - best if self.options.mode == "max" else best - value
        return gain > self.options.min_delta
