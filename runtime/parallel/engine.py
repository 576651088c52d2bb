"""ReplicaEngine: computes the gradient of a batch in shards, on several replicas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray
from runtime.parallel.flat_params import Layout, Segment
from runtime.parallel.group import ReplicaGroup
from runtime.parallel.replica import Command, shards_in_order
from runtime.parallel.shard_plan import ShardPlan
from runtime.solvers.engine import EngineSetup, clip_factor
from runtime.solvers.history import History
from runtime.solvers.hooks import Score
from runtime.solvers.nets import share_trained_layers
from runtime.solvers.testing import Outcome, read_scores, run_test_batches


class ReplicaEngine:
    """The engine of a solver whose nets are those of the first replica. See Engine.

    Between compute_gradients and apply_update every replica has the part of the gradient that it
    owns; with one replica, the net's diffs have all of it.
    """

    def __init__(self, setup: EngineSetup, group: ReplicaGroup, plan: ShardPlan) -> None:
        self.net, self.rule, self.test_nets = setup.net, setup.rule, setup.test_nets
        self.group, self.plan = group, plan
        self.shards = plan.shards
        self.pass_number = self.net.context.pass_number
        self._scores: list[Score] = []
        self._shared_versions: list[int | None] = []

    def compute_loss(self) -> float:
        """See Engine."""
        self._share_weights()
        results = shards_in_order(self.group.run(Command.FORWARD, self.pass_number))
        self.pass_number += self.plan.shards
        return self._mean_loss(results)

    def compute_gradients(self, iter_size: int) -> float:
        """See Engine."""
        self._share_weights()
        results = shards_in_order(self.group.run(Command.COMPUTE, self.pass_number))
        self.pass_number += self.plan.shards * iter_size
        return self._mean_loss(results)

    def scores(self) -> list[Score]:
        """See Engine; the means over the shards."""
        return self._scores

    def _mean_loss(self, results: list[list[Outcome]]) -> float:
        """Store the mean outputs of the last passes; returns the mean loss of all passes."""
        last = [outcomes[-1].scores for outcomes in results]
        self._scores = [
            Score(score.name, math.fsum(column) / len(column), score.loss_weight)
            for score, column in zip(read_scores(self.net), zip(*last))
        ]
        losses = [outcome.loss for outcomes in results for outcome in outcomes]
        return math.fsum(losses) / len(losses)

    def apply_update(self, param: Any, rate: float, iteration: int) -> None:
        """See Engine."""
        factors = self._clip_factors(float(param.clip_gradients))
        if param.iter_size != 1:
            factors.append(1.0 / param.iter_size)
        self.group.run(Command.UPDATE, factors, rate, iteration, bool(param.snapshot_diff))
        self._shared_versions = self._weight_versions()

    def _clip_factors(self, limit: float) -> list[float]:
        if limit < 0:
            return []
        # fsum is exact up to one rounding, so the norm does not depend on the number of replicas.
        squares = math.fsum(shards_in_order(self.group.run(Command.NORM_PARTS)))
        factor = clip_factor(math.sqrt(squares), limit)
        return [] if factor is None else [factor]

    def _share_weights(self) -> None:
        """Send the first replica's weights to the others if they were changed outside."""
        if self.group.size > 1 and self._shared_versions != self._weight_versions():
            self.group.run(Command.LOAD_WEIGHTS)
            self._shared_versions = self._weight_versions()

    def _weight_versions(self) -> list[int | None]:
        return [blob.data.version for blob in self.net.params.learnable]

    # History.

    @property
    def history(self) -> History:
        """See Engine; a copy, collected from the replicas that own its parts."""
        history = History(self.net, self.rule)
        for owner, arrays in enumerate(self.group.run(Command.SEND_HISTORY)[0]):
            parts = self._parts(history, owner)
            for (values, segment), array in zip(parts, arrays, strict=True):
                values[segment.start : segment.stop] = array
        return history

    def restore_history(self, arrays: Sequence[HostArray], source: str) -> None:
        """See Engine."""
        history = History(self.net, self.rule)
        history.load(arrays, source)
        messages = [
            [
                values[segment.start : segment.stop]
                for values, segment in self._parts(history, owner)
            ]
            for owner in range(self.group.size)
        ]
        self.group.run(Command.TAKE_HISTORY, first=[messages])

    def _parts(self, history: History, owner: int) -> list[tuple[HostArray, Segment]]:
        """The flat history arrays of a replica's segments, with the segments."""
        layout = Layout([blob.count() for blob in self.net.params.learnable])
        segments = layout.segments(owner, self.group.size)
        return [
            (history.of_param(segment.index)[kind].data.mutable_host().reshape(-1), segment)
            for kind in range(self.rule.histories)
            for segment in segments
        ]

    # Tests.

    def run_test(
        self, net_id: int, batches: int, should_continue: Callable[[], bool]
    ) -> list[Outcome] | None:
        """See Engine; each replica runs a contiguous part of the batches.

        A test net with weights that the train net lacks runs on the first replica only, because
        the other replicas do not have these weights.
        """
        net, size = self.test_nets[net_id], self.group.size
        if share_trained_layers(net, self.net) or size == 1:
            return run_test_batches(net, batches, should_continue)
        start, per_replica = net.context.pass_number, ceil_div(batches, size)
        outcomes: dict[int, Outcome] = {}
        for turn in range(per_replica):
            if not should_continue():
                return None
            indices = [rank * per_replica + turn for rank in range(size)]
            passes = [start + index if index < batches else None for index in indices]
            for index, outcome in zip(indices, self.group.run(Command.TEST, net_id, passes)):
                if outcome is not None:
                    outcomes[index] = outcome
        net.context.pass_number = start + batches
        return [outcomes[index] for index in range(batches)]

    def close(self) -> None:
        """Close the replicas."""
        self.group.close()
