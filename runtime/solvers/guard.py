"""LossGuard: ends a run whose loss is NaN or infinite, and warns of one that does not improve."""

from __future__ import annotations

import logging
import math
from collections import deque

from prototxt_gen.errors import TrainingError
from runtime.logs.glog import number
from runtime.net import Net
from runtime.net.shape_net import batch_of
from runtime.solvers.hooks import Progress, RunView, SolverHook

log = logging.getLogger("verydeep.solver")

CLAMPED_LOSS = 87.3365
"""-log(FLT_MIN): Caffe's softmax loss for a probability of 0."""
PAPER_BATCH = 256

_ADVICE = (
    "divide base_lr by 10 (it depends on the batch; the paper's is 256), check the initialisation "
    "and the mean and scale of the data, and that every label is below the number of classes; "
    "clip_gradients limits a single step"
)


def chance_loss(net: Net) -> float | None:
    """The loss of a net that guesses, ln(classes); None if it has losses of other kinds."""
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
    """Ends a run with a non-finite or clamped loss; warns of one that stays at ln(classes)."""

    def __init__(self, window: int = 500, clamped_limit: int = 10, tolerance: float = 0.01) -> None:
        self.window = window
        self.clamped_limit = clamped_limit
        self.tolerance = tolerance
        self._recent: deque[float] = deque(maxlen=window)
        self._chance: float | None = None
        self._clamped = 0
        self._warned_at = 0

    def on_solve(self, solver: RunView) -> None:
        """Compute the loss of guessing, and warn of a batch that is far from the paper's."""
        self._chance = chance_loss(solver.net)
        batch = batch_of(solver.net) * solver.engine.shards
        if solver.param.iter_size == 1 and not 64 <= batch <= 4 * PAPER_BATCH:
            log.warning(
                "The effective batch is %d and iter_size is 1; the paper's is %d. Change the "
                "learning rate in proportion to the batch, or set iter_size: %d to update after %d "
                "images",
                batch,
                PAPER_BATCH,
                max(PAPER_BATCH // batch, 1),
                max(PAPER_BATCH // batch, 1) * batch,
            )

    def on_iteration(self, solver: RunView, progress: Progress) -> None:
        """Check the loss of an iteration before the update.

        Raises:
            TrainingError: the loss is not finite, or has been clamped for several iterations.
        """
        loss = progress.loss
        if not math.isfinite(loss):
            raise TrainingError(
                f"iteration {progress.iteration}: the loss is {number(loss)}; expected a finite "
                f"number; {_ADVICE}; the weights were not updated with it and the last snapshot "
                "is intact"
            )
        self._check_clamped(progress)
        self._check_stuck(progress)

    def _check_clamped(self, progress: Progress) -> None:
        self._clamped = self._clamped + 1 if abs(progress.loss - CLAMPED_LOSS) < 1e-3 else 0
        if self._clamped >= self.clamped_limit:
            raise TrainingError(
                f"iteration {progress.iteration}: the loss has been {CLAMPED_LOSS} for "
                f"{self._clamped} iterations; expected less: this is -log(FLT_MIN), a probability "
                f"of 0 for the right class of every image, so the net has diverged; {_ADVICE}"
            )

    def _check_stuck(self, progress: Progress) -> None:
        self._recent.append(progress.loss)
        if self._chance is None or len(self._recent) < self.window:
            return
        # The interval between warnings doubles.
        if self._warned_at and progress.iteration < 2 * self._warned_at:
            return
        mean = sum(self._recent) / len(self._recent)
        if abs(mean - self._chance) < self.tolerance * self._chance:
            self._warned_at = max(progress.iteration, 1)
            log.warning(
                "The loss has stayed at %s for %d iterations; ln(classes) = %s is the loss of "
                "guessing. Deep nets with small gaussian weights do not learn: initialise from a "
                "trained net A (verydeep prototxt --init from-net-a), or use xavier or msra "
                "fillers; check that the labels belong to the images",
                number(mean),
                self.window,
                number(self._chance),
            )
