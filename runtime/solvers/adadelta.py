"""AdaDelta. Caffe: adadelta_solver.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.solvers.update_rule import UpdateRule, register_rule


@register_rule
class AdaDeltaRule(UpdateRule):
    """The gradient is scaled by the ratio of the root mean squares of recent steps and gradients.

    `momentum` is the decay of both moving means. The steps do not include the rate.
    """

    type = "AdaDelta"
    histories = 2
    kernel = "adadelta"

    def check(self, param: Any) -> None:
        """See UpdateRule.check."""
        self.delta = self.scalar(param.delta)

    def kernel_constants(self) -> Sequence[Any]:
        """See UpdateRule.kernel_constants."""
        return self.delta, self.momentum, self.scalar(1) - self.momentum

    def compute(
        self, gradient: HostArray, history: Sequence[HostArray], rate: Any, iteration: int
    ) -> HostArray:
        """See UpdateRule.compute."""
        squared_gradients, squared_steps = history
        weight = self.scalar(1) - self.momentum
        squared_gradients *= self.momentum
        squared_gradients += weight * (gradient * gradient)
        ratio = (squared_steps + self.delta) / (squared_gradients + self.delta)
        step = gradient * np.sqrt(ratio)
        squared_steps *= self.momentum
        squared_steps += weight * (step * step)
        return np.asarray(rate * step)
