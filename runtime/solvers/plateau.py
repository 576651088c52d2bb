"""The paper's schedule: divide the rate by ten when the validation accuracy stops improving."""

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
    """What a resumed run needs to go on as if it had not stopped."""

    best: float | None = None
    best_iteration: int = 0
    bad_tests: int = 0
    """Tests since the last improvement or drop."""
    drops: int = 0
    finished: bool = False

    @classmethod
    def from_json(cls, values: Any, where: str) -> PlateauState:
        """Read what `to_json` made.

        Raises:
            SnapshotError: keys are missing or unknown, or hold something else than `to_json` wrote.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names or not _is_sane(values):
            raise SnapshotError(
                f"{where}: the plateau history is damaged; expected the keys {sorted(names)} with "
                f"a score, counts and a truth, got {str(values)[:200]}; use the snapshot before it"
            )
        best = values["best"]
        if isinstance(best, float) and not math.isfinite(best):
            # No score to beat, which earlier versions kept all the same.
            best = None
        return cls(**{**values, "best": best})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _is_sane(values: dict[str, Any]) -> bool:
    best = values["best"]
    counts = [values[name] for name in ("best_iteration", "bad_tests", "drops")]
    return (
        all(is_integer(count) and 0 <= count <= INT_MAX for count in counts)
        and isinstance(values["finished"], bool)
        and (best is None or isinstance(best, float) or is_number(best))
    )


class Plateau:
    """Watches one test score and drops the rate when it has stopped improving.

    Paper: section 3.1. The score is that of the test net, not the training loss.
    """

    def __init__(self, options: PlateauOptions, base_lr: float) -> None:
        self.options = options
        self.base_lr = base_lr
        self.state = PlateauState()

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return float(self.base_lr * self.options.factor**self.state.drops)

    @property
    def finished(self) -> bool:
        """Whether the score has stopped improving for good, and training may end."""
        return self.state.finished and self.options.stop_after_last

    def check_metric(self, outputs: Sequence[Sequence[str]]) -> None:
        """Refuse a metric that no test net has.

        Raises:
            ProtoError: lists the outputs of the test nets.
        """
        known = sorted({name for names in outputs for name in names})
        if self.options.metric not in known:
            have = ", ".join(known) or "none: there is no test net"
            raise ProtoError(
                f"schedule: metric '{self.options.metric}' is no output of a test net; expected "
                f"one of them ({have}); correct metric in the sidecar, or give the solver "
                "test_iter and test_interval"
            )

    def observe(self, iteration: int, result: TestResult) -> None:
        """Take the result of a test into account, where it has the metric.

        A score that was computed of NaN or infinity is no improvement, whatever it is.
        """
        found = next((s.value for s in result.scores if s.name == self.options.metric), None)
        if found is None:
            return
        state, metric = self.state, self.options.metric
        if not result.not_finite and self._improves(found):
            state.best, state.best_iteration, state.bad_tests = found, iteration, 0
            return
        state.bad_tests += 1
        if state.bad_tests < self.options.patience:
            return
        best = number(state.best if state.best is not None else found)
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
