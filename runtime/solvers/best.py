"""The best test score of a run, and when it was."""

from __future__ import annotations

import math
from typing import Any

from prototxt_gen.errors import SnapshotError
from prototxt_gen.reading import short_repr
from prototxt_gen.sidecar import PlateauOptions
from prototxt_gen.toml_tables import is_integer, is_number, is_text
from runtime.solvers.hooks import TestResult


class BestScore:
    """Follows the schedule's metric, else the first test net's first accuracy, else its loss."""

    def __init__(self, schedule: PlateauOptions | None) -> None:
        self._schedule = schedule
        self.name = ""
        self.value = 0.0
        self.iteration = -1

    def observe(self, iteration: int, result: TestResult) -> None:
        """Take the result of a test into account, unless it was computed of NaN or infinity."""
        if result.not_finite:
            return
        if self._schedule is not None:
            found = [s for s in result.scores if s.name == self._schedule.metric]
            larger = self._schedule.mode == "max"
        elif result.net_id == 0:
            found = [s for s in result.scores if not s.loss_weight] or list(result.scores)
            larger = not (found and found[0].loss_weight)
        else:
            return
        if not found:
            return
        value = found[0].value
        better = value > self.value if larger else value < self.value
        if self.iteration < 0 or better:
            self.name, self.value, self.iteration = found[0].name, value, iteration

    def to_json(self) -> dict[str, Any] | None:
        """The score as the snapshot keeps it; None before the first test."""
        if self.iteration < 0:
            return None
        return {"name": self.name, "value": self.value, "iteration": self.iteration}

    def from_json(self, values: Any) -> None:
        """Take over what `to_json` gave.

        Raises:
            SnapshotError: keys are missing, or hold something else.
        """
        if values is None:
            return
        try:
            name, value, iteration = (values[key] for key in ("name", "value", "iteration"))
            endless = isinstance(value, float) and not math.isfinite(value)
            if not (is_text(name) and is_integer(iteration) and (endless or is_number(value))):
                raise TypeError("of another kind")
        except (KeyError, TypeError) as cause:
            raise SnapshotError(
                f"best: damaged; expected name, value and iteration, got {short_repr(values)}; "
                "use the snapshot before it"
            ) from cause
        if not endless:  # which is no score to beat, though earlier versions kept it
            self.name, self.value, self.iteration = name, float(value), iteration
