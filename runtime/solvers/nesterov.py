"""Nesterov's accelerated gradient. Caffe: nesterov_solver.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.solvers.update_rule import UpdateRule, register_rule


@register_rule
class NesterovRule(UpdateRule):
    """The history is SGD's; the step goes back over the old one and beyond the new one."""

    type = "Nesterov"

    def compute(
        self, gradient: HostArray, history: Sequence[HostArray], rate: Any, iteration: int
    ) -> HostArray:
        """See UpdateRule.compute."""
        velocity = history[0]
        back = self.momentum * velocity
        velocity *= self.momentum
        velocity += rate * gradient
        return np.asarray((self.scalar(1) + self.momentum) * velocity - back)
