"""Nesterov's accelerated gradient. Caffe: nesterov_solver.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.solvers.update_rule import UpdateRule, register_rule


@register_rule
class NesterovRule(UpdateRule):
    """history = momentum * history + rate * gradient, as in SGD.

    The update is (1 + momentum) * new history - momentum * old history.
    """

    type = "Nesterov"
    kernel = "nesterov"

    def kernel_constants(self) -> Sequence[Any]:
        """See UpdateRule.kernel_constants."""
        return self.momentum, self.scalar(1) + self.momentum

    def compute(
        self, gradient: HostArray, history: Sequence[HostArray], rate: Any, iteration: int
    ) -> HostArray:
        """See UpdateRule.compute."""
        velocity = history[0]
        previous = self.momentum * velocity
        velocity *= self.momentum
        velocity += rate * gradient
        return np.asarray((self.scalar(1) + self.momentum) * velocity - previous)
