"""Stochastic gradient descent with momentum. Caffe: sgd_solver.cpp."""

from __future__ import annotations

from runtime.solvers.update_rule import ParamSlot, UpdateRule, register_rule


@register_rule
class SGDRule(UpdateRule):
    """history = momentum * history + rate * gradient; weights -= history.

    The history contains the rate, so earlier gradients keep their rate when the rate drops. Paper:
    section 3.1.
    """

    type = "SGD"
    only_ops = True

    def update(self, slot: ParamSlot, rate: float, iteration: int) -> None:
        """Compute the update on the device, as one op. See UpdateRule."""
        decay = self.weight_decay * slot.decay_mult
        if decay and self.regularization_type == "L1":
            self._add_l1(slot, decay)
            decay = 0.0
        history = slot.history[0].mutable_dev()
        self.backend.vectors.sgd_update(
            slot.data.mutable_dev(),
            slot.diff.dev(),
            history,
            float(self.local_rate(slot, rate)),
            float(self.momentum),
            float(self.scalar(decay)),
        )
        if self.leaves_update:
            self.backend.memory.copy(history, slot.diff.mutable_dev())

    def _add_l1(self, slot: ParamSlot, decay: float) -> None:
        kernels, count = self.backend.kernels, slot.data.count
        if kernels is None:
            self.regularize(slot.diff.mutable_host(), slot.data.host(), decay)
            return
        args = (slot.data.dev(), slot.diff.mutable_dev(), count, float(self.scalar(decay)))
        kernels.elementwise("solver_updates", "l1_decay", count, args)
