"""Engine: the interface of a solver to what computes gradients and updates weights.

LocalEngine (local_engine.py) uses one net. ReplicaEngine (runtime/parallel/engine.py) divides a
batch between replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runtime.backend.base import HostArray
from runtime.logs.glog import caffe_log, number
from runtime.net import Net
from runtime.solvers.history import History
from runtime.solvers.hooks import Score
from runtime.solvers.options import SolverOptions
from runtime.solvers.testing import Outcome
from runtime.solvers.update_rule import UpdateRule


class Engine(Protocol):
    """The computation of a solver: the solver decides when, the engine on which devices."""

    pass_number: int
    """Passes of the train net so far, each shard counted; determines the data of the next pass."""

    @property
    def shards(self) -> int:
        """Equal parts in which the gradient of a batch is computed."""

    @property
    def history(self) -> History:
        """The history of the update rule, for a snapshot."""

    def restore_history(self, arrays: Sequence[HostArray], source: str) -> None:
        """Replace the history by that of a solverstate. See History.load.

        Raises:
            SnapshotError: it does not fit the net and the solver type.
        """

    def compute_loss(self) -> float:
        """Run one batch forward."""

    def compute_gradients(self, iter_size: int) -> float:
        """Sum the gradients of `iter_size` batches; returns their mean loss.

        Raises:
            DataError, DeviceError, TrainingError: a pass failed; the weights are unchanged.
        """

    def scores(self) -> list[Score]:
        """The train net's outputs in the last pass."""

    def apply_update(self, param: Any, rate: float, iteration: int) -> None:
        """Clip the summed gradient, divide it by iter_size, regularise it and update the weights.

        `param` is the SolverParameter.
        """

    def run_test(
        self, net_id: int, batches: int, should_continue: Callable[[], bool]
    ) -> list[Outcome] | None:
        """Run batches of a test net with the current weights.

        Returns the outcomes in the order of the batches, or None once `should_continue`, which is
        called before each batch, returns False.
        """

    def close(self) -> None:
        """Release what the engine has created, such as replicas; the nets stay the solver's."""


@dataclass(frozen=True)
class EngineSetup:
    """What a solver gives to its engine."""

    param: Any
    """The SolverParameter."""
    options: SolverOptions
    seed: int
    rule: UpdateRule
    net: Net
    test_nets: Sequence[Net]


BuildEngine = Callable[[EngineSetup], Engine]
"""Creates the engine of a solver; called once, when its nets are built."""


def clip_factor(norm: float, limit: float, log: bool = True) -> float | None:
    """The factor that scales a gradient down to the limit; None if it is not above the limit.

    Caffe: SGDSolver::ClipGradients, with its log line if `log`.
    """
    if not norm > limit:
        return None
    factor = limit / norm
    if log:
        caffe_log(
            "sgd_solver.cpp:92",
            "Gradient clipping: scaling down gradients (L2 norm %s > %s) by scale factor %s",
            number(norm),
            number(limit),
            number(factor),
        )
    return factor
