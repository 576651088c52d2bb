"""Guards: a run that cannot come to anything is ended, one that looks like it is warned about."""

from __future__ import annotations

import logging
import math
from collections import deque

from prototxt_gen.errors import TrainingError
from runtime.logs.glog import number
from runtime.net import Net
from runtime.solvers.hooks import Progress, RunView, SolverHook

log = logging.getLogger("verydeep.solver")

CLAMPED_LOSS = 87.3365
"""-log(FLT_MIN): what Caffe's soft-max loss gives for a probability of 0."""
PAPER_BATCH = 256

_ADVICE = (
    "divide base_lr by 10 (a batch other than the paper's 256 wants its own), check the "
    "initialisation and the mean and scale of the data, and that every label is below the number "
    "of classes; clip_gradients bounds a single bad step"
)


def batch_size(net: Net) -> int:
    """Images of one pass: the first dimension of the first layer that reads nothing."""
    for bottom, top in zip(net.bottoms, net.tops):
        if not bottom and top and top[0].num_axes:
            return top[0].shape[0]
    return 0


def chance_loss(net: Net) -> float | None:
    """The loss of a net that knows nothing, ln(classes); None where other losses are in play."""
    total = 0.0
    for layer, bottom in zip(net.layers, net.bottoms):
        weight = next((w for w in layer.loss_weights if w), 0.0)
        if not weight:
            continue
        loss = layer.chance_loss(bottom)
        if loss is None:
            return None
        total += weight * loss
    return total or None


class LossGuard(SolverHook):
    """Ends a run whose loss is no number or clamped; warns of one that stays at ln(classes)."""

    def __init__(self, window: int = 500, clamped_limit: int = 10, tolerance: float = 0.01) -> None:
        self.window = window
        self.clamped_limit = clamped_limit
        self.tolerance = tolerance
        self._recent: deque[float] = deque(maxlen=window)
        self._chance: float | None = None
        self._clamped = 0
        self._warned_at = 0

    def on_solve(self, solver: RunView) -> None:
        """Look at the net once: how large a batch, which losses."""
        self._chance = chance_loss(solver.net)
        batch = batch_size(solver.net) * solver.engine.shards
        if solver.param.iter_size == 1 and batch and not 64 <= batch <= 4 * PAPER_BATCH:
            log.warning(
                "The effective batch is %d and iter_size is 1; the paper's is %d. With another "
                "batch the learning rate wants to change in proportion, or set iter_size: %d to "
                "update after %d images",
                batch,
                PAPER_BATCH,
                max(PAPER_BATCH // batch, 1),
                max(PAPER_BATCH // batch, 1) * batch,
            )

    def on_iteration(self, solver: RunView, progress: Progress) -> None:
        """Judge the loss of an iteration, before it changes the weights."""
        loss = progress.loss
        if not math.isfinite(loss):
            raise TrainingError(
                f"iteration {progress.iteration}: the loss is {number(loss)}; expected a finite "
                f"number; {_ADVICE}; the weights were not updated with it and the last snapshot "
                "is intact"
            )
        self._judge_clamped(progress)
        self._judge_stuck(progress)

    def _judge_clamped(self, progress: Progress) -> None:
        self._clamped = self._clamped + 1 if abs(progress.loss - CLAMPED_LOSS) < 1e-3 else 0
        if self._clamped >= self.clamped_limit:
            raise TrainingError(
                f"iteration {progress.iteration}: the loss has been {CLAMPED_LOSS} for "
                f"{self._clamped} iterations; expected less: this is -log(FLT_MIN), the net gives "
                f"the right class a probability of 0 for every image, it has diverged; {_ADVICE}"
            )

    def _judge_stuck(self, progress: Progress) -> None:
        self._recent.append(progress.loss)
        if self._chance is None or len(self._recent) < self.window:
            return
        # Said again after twice as long, and so on: a reminder, not a flood.
        if self._warned_at and progress.iteration < 2 * self._warned_at:
            return
        mean = sum(self._recent) / len(self._recent)
        if abs(mean - self._chance) < self.tolerance * self._chance:
            self._warned_at = max(progress.iteration, 1)
            log.warning(
                "The loss has stayed at %s for %d iterations: that is ln(classes) = %s, a net that "
                "guesses. Deep nets from small gaussian weights stay there: initialise from a "
                "trained net A (verydeep prototxt --init from-net-a), or use xavier or msra "
                "fillers; check that data and labels belong together",
                number(mean),
                self.window,
                number(self._chance),
            )
