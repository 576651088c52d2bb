"""ReplicaEngine: the solver's engine over shards and replicas, with Engine's methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from prototxt_gen.errors import VerydeepError
from runtime.core.blob import Blob
from runtime.logs.glog import caffe_log, number
from runtime.net import Net
from runtime.parallel.crew import Crew
from runtime.parallel.flat_params import Layout, Segment
from runtime.parallel.replica import shards_in_order
from runtime.parallel.shard_plan import ShardPlan
from runtime.solvers.engine import Engine
from runtime.solvers.hooks import Score
from runtime.solvers.nets import share_trained_layers
from runtime.solvers.testing import Outcome, TestNets, read_scores
from runtime.solvers.update_rule import UpdateRule


class ReplicaEngine(Engine):
    """Computes a batch's gradient in shards, on the replicas of a crew.

    `net` is the first replica's. Between compute_gradients and apply_update the gradient lies with
    its owners; on one replica, in the net.
    """

    def __init__(self, net: Net, rule: UpdateRule, crew: Crew, plan: ShardPlan) -> None:
        self.net, self.rule, self.crew, self.plan = net, rule, crew, plan
        self.shards = plan.shards
        self._clock = net.context.pass_number
        self._scores: list[Score] = []
        self._versions: list[int | None] = []

    @property
    def pass_number(self) -> int:
        """The clock of the training data: passes of all shards."""
        return self._clock

    @pass_number.setter
    def pass_number(self, value: int) -> None:
        self._clock = value

    def compute_loss(self) -> float:
        """Run one batch forward, in all its shards."""
        self._share_weights()
        results = shards_in_order(self.crew.run("forward", self._clock))
        self._clock += self.plan.shards
        return self._note(results)

    def scores(self) -> list[Score]:
        """The outputs of the last pass, averaged over its shards."""
        return self._scores

    def compute_gradients(self, iter_size: int) -> float:
        """Compute the gradient of iter_size passes of every shard; return the mean loss."""
        self._share_weights()
        results = shards_in_order(self.crew.run("compute", self._clock))
        self._clock += self.plan.shards * iter_size
        return self._note(results)

    def _note(self, results: list[list[Outcome]]) -> float:
        """Keep the outputs of the last passes; return the mean loss, whoever computed it."""
        last = [outcomes[-1].scores for outcomes in results]
        self._scores = [
            Score(score.name, math.fsum(column) / len(column), score.loss_weight)
            for score, column in zip(read_scores(self.net), zip(*last))
        ]
        losses = [outcome.loss for outcomes in results for outcome in outcomes]
        return math.fsum(losses) / len(losses)

    def apply_update(self, param: Any, rate: float, iteration: int) -> None:
        """Clip the summed gradient, divide it by iter_size, regularise and step: in that order."""
        factors = self._clip_factors(float(param.clip_gradients))
        if param.iter_size != 1:
            factors.append(1.0 / param.iter_size)
        self.crew.run("update", factors, rate, iteration, bool(param.snapshot_diff))
        self._versions = self._weight_versions()

    def _clip_factors(self, limit: float) -> list[float]:
        if limit < 0:
            return []
        # fsum rounds once: the norm does not depend on who added which chunk.
        norm = math.sqrt(math.fsum(shards_in_order(self.crew.run("norm_parts"))))
        if norm <= limit:
            return []
        caffe_log(
            "sgd_solver.cpp:92",
            "Gradient clipping: scaling down gradients (L2 norm %s > %s) by scale factor %s",
            number(norm),
            number(limit),
            number(limit / norm),
        )
        return [limit / norm]

    def _share_weights(self) -> None:
        """Give the weights to all, where somebody has changed them: at the start, on a resume."""
        if self.crew.size > 1 and self._versions != self._weight_versions():
            self.crew.run("load_weights")
            self._versions = self._weight_versions()

    def _weight_versions(self) -> list[int | None]:
        return [blob.data.version for blob in self.net.params.learnable]

    # History.

    @property
    def history(self) -> list[Blob]:  # type: ignore[override]  # read-only: it is gathered
        """The history of all owners, put together."""
        whole = Engine(self.net, self.rule).history
        parcels = self.crew.run("send_history")[0]
        params = len(self.net.params.learnable)
        for peer, arrays in enumerate(parcels):
            segments = self._segments(peer)
            for i, values in enumerate(arrays):
                kind, place = divmod(i, len(segments))
                segment = segments[place]
                flat = whole[segment.index + kind * params].data.mutable_host().reshape(-1)
                flat[segment.start : segment.stop] = values
        return whole

    def restore_history(self, history: list[Any], where: str, error: type[VerydeepError]) -> None:
        """See Engine.restore_history."""
        checked = Engine(self.net, self.rule)
        checked.restore_history(history, where, error)
        params = len(self.net.params.learnable)
        parcels = [
            [
                checked.history[segment.index + kind * params]
                .data.host()
                .reshape(-1)[segment.start : segment.stop]
                for kind in range(self.rule.histories)
                for segment in self._segments(peer)
            ]
            for peer in range(self.crew.size)
        ]
        self.crew.scatter("take_history", parcels)

    def _segments(self, peer: int) -> list[Segment]:
        counts = [blob.count() for blob in self.net.params.learnable]
        return Layout(counts).segments(peer, self.crew.size)


class ReplicaTests(TestNets):
    """Test nets whose batches are dealt to the replicas, a run of them to each."""

    def __init__(self, tests: TestNets, crew: Crew) -> None:
        super().__init__(tests.nets, tests.train_net, tests.test_iter)
        self.crew = crew

    def run_batches(self, net_id: int, go_on: Callable[[], bool]) -> list[Outcome] | None:
        """See TestNets.run_batches; the images are the same as on one device.

        A test net with weights of its own, which the other replicas lack, runs on the first alone.
        """
        batches, size = self.test_iter[net_id], self.crew.size
        if size == 1 or share_trained_layers(self.nets[net_id], self.train_net):
            return super().run_batches(net_id, go_on)
        context = self.nets[net_id].context
        start, each = context.pass_number, -(-batches // size)
        outcomes: dict[int, Outcome] = {}
        for turn in range(each):
            if not go_on():
                return None
            numbers = [rank * each + turn for rank in range(size)]
            passes = [start + n if n < batches else None for n in numbers]
            for n, outcome in zip(numbers, self.crew.run("test", net_id, passes)):
                if outcome is not None:
                    outcomes[n] = outcome
        context.pass_number = start + batches
        return [outcomes[n] for n in range(batches)]
