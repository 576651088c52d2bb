"""Training in several processes, one solver in each: the rank's part of the data and of the run.

Rank r of N computes every N-th batch. Its gradients are averaged with those of the other ranks by
NCCL (nccl.py). Caffe: Caffe::solver_count, Caffe::solver_rank, Solver (root_solver).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.errors import UnsupportedError
from prototxt_gen.proto import copy_of
from runtime.backend.base import Backend
from runtime.core.context import PassWindow
from runtime.parallel.collective import Collective
from runtime.parallel.flat_params import Layout
from runtime.solvers.engine import BuildEngine, EngineSetup, clip_factor
from runtime.solvers.hooks import Score
from runtime.solvers.local_engine import LocalEngine
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver
from runtime.solvers.testing import Outcome, read_scores, run_batch

_TEST_FIELDS = (
    "test_net",
    "test_net_param",
    "test_state",
    "test_iter",
    "test_interval",
    "test_initialization",
)


@dataclass(frozen=True)
class Rank:
    """The number of a process among `count` that train together."""

    number: int = 0
    count: int = 1

    def window(self, iter_size: int) -> PassWindow:
        """The passes of an iteration that this rank computes."""
        first = self.number * iter_size
        return PassWindow(self.count * iter_size, first, first + iter_size)


class RankEngine(LocalEngine):
    """Computes one rank's batches; `collective` connects it to the other ranks' engines, if set.

    With one, losses and scores are the means over all ranks. Gradients are the rank's own.
    """

    def __init__(self, setup: EngineSetup, rank: Rank) -> None:
        super().__init__(setup)
        self.rank, self.shards = rank, rank.count
        self.collective: Collective | None = None
        self._clock = setup.net.context.pass_number
        self._scores: list[Score] = []

    @property
    def pass_number(self) -> int:
        """The clock of the training data: passes of all ranks."""
        return self._clock

    @pass_number.setter
    def pass_number(self, value: int) -> None:
        self._clock = value

    def compute_loss(self) -> float:
        """Run one batch forward."""
        return self._passes(1, backward=False)

    def scores(self) -> list[Score]:
        """The outputs of the last pass."""
        return self._scores

    def compute_gradients(self, iter_size: int) -> float:
        """Add up the gradients of `iter_size` passes; return their mean loss."""
        self.net.clear_param_diffs()
        return self._passes(iter_size, backward=True)

    def _clip(self, limit: float) -> None:
        """Add up the norm as ReplicaEngine does, to the same bits."""
        if limit < 0:
            return
        vectors, memory = self.net.backend.vectors, self.net.backend.memory
        layout = Layout([blob.count() for blob in self.net.params.learnable])
        parts = []
        for segment in layout.segments(0, 1):
            gradient = self.slots[segment.index].diff.dev()
            parts += [vectors.sumsq(memory.view(gradient, i, (n,))) for i, n in segment.chunks()]
        norm = math.sqrt(math.fsum(parts))
        factor = clip_factor(norm, limit, log=self.rank.number == 0)
        if factor is not None:
            for slot in self.slots:
                vectors.scal(factor, slot.diff.mutable_dev())

    def _passes(self, iter_size: int, backward: bool) -> float:
        try:
            return self._mean(self._run(iter_size, backward))
        except BaseException:
            # The other ranks would wait for this one.
            if self.collective is not None:
                self.collective.abort()
            raise

    def _run(self, iter_size: int, backward: bool) -> list[Outcome]:
        outcomes = []
        for i in range(iter_size):
            self.net.context.pass_number = self._clock + self.rank.number * iter_size + i
            outcomes.append(run_batch(self.net))
            if backward:
                self.net.backward()
        self._clock += self.rank.count * iter_size
        return outcomes

    def _mean(self, outcomes: list[Outcome]) -> float:
        """Keep the mean scores of the last pass; return the mean loss. Rounded once, by fsum."""
        losses, scores = [outcome.loss for outcome in outcomes], outcomes[-1].scores
        columns = list(zip(*self.gather([*losses, *scores])))
        means = [math.fsum(column) / len(column) for column in columns[len(losses) :]]
        own = read_scores(self.net)
        self._scores = [dataclasses.replace(score, value=mean) for score, mean in zip(own, means)]
        flat = [loss for column in columns[: len(losses)] for loss in column]
        return math.fsum(flat) / len(flat)

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of all ranks, in their order; the rank's own without a collective."""
        if self.collective is None:
            return [values]
        size = self.rank.count
        message = [np.array(values, np.float64)]
        incoming = self.collective.exchange([message] * size, [[len(values)]] * size)
        self.collective.release()
        return [arrays[0].tolist() for arrays in incoming]


class FollowingSolver(Solver):
    """The solver of a rank above 0: it neither tests, writes snapshots nor displays."""

    def test_all(self) -> None:
        """Do nothing: rank 0 tests."""

    def snapshot(self) -> tuple[Path, ...]:
        """Do nothing: rank 0 writes the snapshots."""
        return ()


def build_solver(param: Any, backend: Backend, options: SolverOptions, rank: Rank) -> Solver:
    """The solver of one rank.

    Raises:
        UnsupportedError: several ranks, and a sidecar whose schedule depends on tests.
        VerydeepError: see Solver.
    """
    if rank.count == 1:
        return Solver(param, backend, options)
    if options.sidecar.schedule is not None:
        raise UnsupportedError(
            "pycaffe solver: the sidecar's schedule depends on tests, which only rank 0 runs; "
            f"expected a schedule of the prototxt for {rank.count} processes; remove [schedule], "
            "or use `verydeep train --gpu 0,1`"
        )
    options = dataclasses.replace(options, window=rank.window(param.iter_size))
    build_engine = functools.partial(RankEngine, rank=rank)
    if rank.number == 0:
        return Solver(param, backend, options, build_engine=build_engine)
    return _following(param, backend, options, build_engine)


def _following(
    param: Any, backend: Backend, options: SolverOptions, build_engine: BuildEngine
) -> Solver:
    built = copy_of(param)
    for name in _TEST_FIELDS:
        built.ClearField(name)
    built.snapshot, built.snapshot_after_train = 0, False
    solver = FollowingSolver(built, backend, options, build_engine=build_engine)
    # Scripts read these fields on every rank.
    solver.param.CopyFrom(param)
    solver.hooks.clear()
    return solver
