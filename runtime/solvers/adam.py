"""Adam. Caffe: adam_solver.cpp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.solvers.update_rule import ParamSlot, UpdateRule, register_rule


@register_rule
class AdamRule(UpdateRule):
    """Moving means of the gradient (`momentum`) and the squared gradient (`momentum2`).

    Both start at zero; the bias correction depends on the solver's iteration.
    """

    type = "Adam"
    histories = 2
    kernel = "adam"

    def check(self, param: Any) -> None:
        """See UpdateRule.check."""
        self.delta = self.scalar(param.delta)
        self.momentum2 = self.scalar(param.momentum2)

    def kernel_constants(self) -> Sequence[Any]:
        """See UpdateRule.kernel_constants."""
        one, first, second = self.scalar(1), self.momentum, self.momentum2
        return self.delta, first, one - first, second, one - second

    def step_rate(self, slot: ParamSlot, rate: float, iteration: int) -> float:
        """See UpdateRule.step_rate: the local rate times the correction of the biases."""
        correction = self.scalar(self._correction(iteration + 1))
        return float(self.local_rate(slot, rate) * correction)

    def compute(
        self, gradient: HostArray, history: Sequence[HostArray], rate: Any, iteration: int
    ) -> HostArray:
        """See UpdateRule.compute."""
        mean, mean_square = history
        one = self.scalar(1)
        mean *= self.momentum
        mean += (one - self.momentum) * gradient
        mean_square *= self.momentum2
        mean_square += (one - self.momentum2) * (gradient * gradient)
        correction = self.scalar(self._correction(iteration + 1))
        return np.asarray((rate * correction) * (mean / (np.sqrt(mean_square) + self.delta)))

    def _correction(self, updates: int) -> float:
        second = 1.0 - float(self.momentum2) ** updates
        return math.sqrt(second) / (1.0 - float(self.momentum) ** updates)
