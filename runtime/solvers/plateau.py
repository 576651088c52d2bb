"""The paper's schedule: divide the rate by ten when the validation accuracy stops improving."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from prototxt_gen.errors import ProtoError, SnapshotError
from prototxt_gen.sidecar import PlateauOptions
from runtime.log import number
from runtime.solvers.hooks import Score

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
            SnapshotError: keys are missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise SnapshotError(
                f"{where}: the plateau history is damaged; expected the keys {sorted(names)}, "
                f"got {values!r}; use the snapshot before it"
            )
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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

    def observe(self, iteration: int, scores: Sequence[Score]) -> None:
        """Take the result of a test into account, where it has the metric."""
        found = next((s.value for s in scores if s.name == self.options.metric), None)
        if found is None:
            return
        state, metric = self.state, self.options.metric
        if self._improves(found):
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
