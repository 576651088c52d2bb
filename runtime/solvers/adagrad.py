"""AdaGrad. Caffe: adagrad_solver.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.solvers.update_rule import UpdateRule, refuse_momentum, register_rule


@register_rule
class AdaGradRule(UpdateRule):
    """The rate of each weight is divided by the root of the sum of its squared gradients."""

    type = "AdaGrad"
    kernel = "adagrad"

    def check(self, param: Any) -> None:
        """See UpdateRule.check."""
        refuse_momentum(param, self.type)
        self.delta = self.scalar(param.delta)

    def kernel_constants(self) -> Sequence[Any]:
        """See UpdateRule.kernel_constants."""
        return (self.delta,)

    def compute(
        self, gradient: HostArray, history: Sequence[HostArray], rate: Any, iteration: int
    ) -> HostArray:
        """See UpdateRule.compute."""
        history[0] += gradient * gradient
        return np.asarray(rate * (gradient / (np.sqrt(history[0]) + self.delta)))
