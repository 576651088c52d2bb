"""RMSProp. Caffe: rmsprop_solver.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.solvers.update_rule import UpdateRule, refuse_momentum, register_rule


@register_rule
class RMSPropRule(UpdateRule):
    """The rate of each weight is divided by the root of the moving mean of squared gradients."""

    type = "RMSProp"
    kernel = "rmsprop"

    def check(self, param: Any) -> None:
        """See UpdateRule.check."""
        refuse_momentum(param, self.type)
        self.delta = self.scalar(param.delta)
        self.rms_decay = self.scalar(param.rms_decay)

    def kernel_constants(self) -> Sequence[Any]:
        """See UpdateRule.kernel_constants."""
        return self.delta, self.rms_decay, self.scalar(1) - self.rms_decay

    def compute(
        self, gradient: HostArray, history: Sequence[HostArray], rate: Any, iteration: int
    ) -> HostArray:
        """See UpdateRule.compute."""
        mean_square = history[0]
        mean_square *= self.rms_decay
        mean_square += (self.scalar(1) - self.rms_decay) * (gradient * gradient)
        return np.asarray(rate * (gradient / (np.sqrt(mean_square) + self.delta)))
