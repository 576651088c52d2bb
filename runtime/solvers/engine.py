"""Engine: computes gradients and updates weights for a solver; LocalEngine does so on one net.

`runtime/parallel/engine.py` has the engine that divides a batch between replicas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from runtime.backend.base import HostArray
from runtime.logs.glog import caffe_log, number
from runtime.net import Net
from runtime.net.replay import Replay
from runtime.solvers.history import History
from runtime.solvers.hooks import Score
from runtime.solvers.nets import share_trained_layers
from runtime.solvers.options import SolverOptions
from runtime.solvers.testing import Outcome, read_scores, run_test_batches
from runtime.solvers.update_rule import ParamSlot, UpdateRule


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


class LocalEngine:
    """One net on one device."""

    shards = 1

    def __init__(self, setup: EngineSetup) -> None:
        self.net, self.rule, self.test_nets = setup.net, setup.rule, setup.test_nets
        recorder = self.net.backend.recorder
        self._replay = None if recorder is None else Replay(recorder)
        self.history = History(self.net, self.rule)
        params = self.net.params
        self.slots = [
            ParamSlot(
                name=blob.name,
                data=blob.data,
                diff=blob.diff,
                history=[kept.data for kept in self.history.of_param(i)],
                lr_mult=params.lr_mult[i],
                decay_mult=params.decay_mult[i],
            )
            for i, blob in enumerate(params.learnable)
        ]

    @property
    def pass_number(self) -> int:
        """See Engine."""
        return self.net.context.pass_number

    @pass_number.setter
    def pass_number(self, value: int) -> None:
        self.net.context.pass_number = value

    def restore_history(self, arrays: Sequence[HostArray], source: str) -> None:
        """See Engine."""
        self.history.load(arrays, source)

    def compute_loss(self) -> float:
        """See Engine."""
        return self.net.forward()

    def compute_gradients(self, iter_size: int) -> float:
        """See Engine."""
        self.net.clear_param_diffs()
        loss = 0.0
        for _ in range(iter_size):
            loss += self.net.forward()
            self.net.backward()
        return loss / iter_size

    def scores(self) -> list[Score]:
        """See Engine."""
        return read_scores(self.net)

    def apply_update(self, param: Any, rate: float, iteration: int) -> None:
        """See Engine. On a GPU the update is replayed if the rule only calls ops."""
        self._clip(float(param.clip_gradients))
        update = partial(self._update_all, param, rate, iteration)
        if self._replay is None or not self.rule.only_ops or param.debug_info:
            update()
            return
        rates = [float(self.rule.local_rate(slot, rate)) for slot in self.slots]
        self._replay.begin((param.iter_size, self.rule.leaves_update), rates=rates)
        if not self._replay.replayed(0):
            self._replay.do(0, update)
        self._replay.end()

    def run_test(
        self, net_id: int, batches: int, should_continue: Callable[[], bool]
    ) -> list[Outcome] | None:
        """See Engine."""
        share_trained_layers(self.test_nets[net_id], self.net)
        return run_test_batches(self.test_nets[net_id], batches, should_continue)

    def close(self) -> None:
        """See Engine."""

    def _clip(self, limit: float) -> None:
        if limit < 0:
            return
        vectors = self.net.backend.vectors
        norm = math.sqrt(sum(vectors.sumsq(slot.diff.dev()) for slot in self.slots))
        factor = clip_factor(norm, limit)
        if factor is not None:
            for slot in self.slots:
                vectors.scal(factor, slot.diff.mutable_dev())

    def _update_all(self, param: Any, rate: float, iteration: int) -> None:
        for slot in self.slots:
            if param.iter_size != 1:
                self.net.backend.vectors.scal(1.0 / param.iter_size, slot.diff.mutable_dev())
            if param.debug_info:
                self._update_with_debug_line(slot, rate, iteration)
            else:
                self.rule.update(slot, rate, iteration)

    def _update_with_debug_line(self, slot: ParamSlot, rate: float, iteration: int) -> None:
        backend, count = self.net.backend, max(slot.data.count, 1)
        data = backend.vectors.asum(slot.data.dev()) / count
        self.rule.update(slot, rate, iteration)
        layer, _, index = slot.name.rpartition("[")
        caffe_log(
            "net.cpp:677",
            "    [Update] Layer %s, param %s data: %s; diff: %s",
            layer,
            index.rstrip("]"),
            number(data),
            number(backend.vectors.asum(slot.diff.dev()) / count),
        )


def clip_factor(norm: float, limit: float) -> float | None:
    """The factor that scales a gradient down to the limit; None if it is not above the limit.

    Caffe: SGDSolver::ClipGradients, with its log line.
    """
    if not norm > limit:
        return None
    factor = limit / norm
    caffe_log(
        "sgd_solver.cpp:92",
        "Gradient clipping: scaling down gradients (L2 norm %s > %s) by scale factor %s",
        number(norm),
        number(limit),
        number(factor),
    )
    return factor
