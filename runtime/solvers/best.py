"""BestScore: the best test score of a run, and its iteration."""

from __future__ import annotations

import math
from typing import Any

from prototxt_gen.errors import SnapshotError
from prototxt_gen.reading import short_repr
from prototxt_gen.sidecar import PlateauOptions
from prototxt_gen.toml_tables import is_integer, is_number, is_text
from runtime.solvers.hooks import TestResult


class BestScore:
    """The best value of the schedule's metric, or of the first test net's accuracy or loss."""

    def __init__(self, schedule: PlateauOptions | None) -> None:
        self._schedule = schedule
        self.name = ""
        self.value = 0.0
        self.iteration = -1

    def observe(self, iteration: int, result: TestResult) -> None:
        """Compare the result of a test; one with NaN or infinity is ignored."""
        if result.not_finite:
            return
        if self._schedule is not None:
            scores = [s for s in result.scores if s.name == self._schedule.metric]
            maximize = self._schedule.mode == "max"
        elif result.net_id == 0:
            scores = [s for s in result.scores if not s.loss_weight] or list(result.scores)
            maximize = not (scores and scores[0].loss_weight)
        else:
            return
        if not scores:
            return
        value = scores[0].value
        better = value > self.value if maximize else value < self.value
        if self.iteration < 0 or better:
            self.name, self.value, self.iteration = scores[0].name, value, iteration

    def to_json(self) -> dict[str, Any] | None:
        """The score for a snapshot; None before the first test."""
        if self.iteration < 0:
            return None
        return {"name": self.name, "value": self.value, "iteration": self.iteration}

    def from_json(self, values: Any) -> None:
        """Restore a value of `to_json`.

        Raises:
            SnapshotError: keys are missing or have values of other types.
        """
        if values is None:
            return
        try:
            name, value, iteration = (values[key] for key in ("name", "value", "iteration"))
            not_finite = isinstance(value, float) and not math.isfinite(value)
            if not (is_text(name) and is_integer(iteration) and (not_finite or is_number(value))):
                raise TypeError("a value of another type")
        except (KeyError, TypeError) as cause:
            raise SnapshotError(
                f"best: damaged; expected name, value and iteration, got {short_repr(values)}; "
                "use the snapshot before it"
            ) from cause
        if not not_finite:  # earlier versions stored such scores
            self.name, self.value, self.iteration = name, float(value), iteration
