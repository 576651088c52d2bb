"""LocalEngine: the gradients and updates of one net on one device. See engine.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from runtime.backend.base import HostArray
from runtime.logs.glog import caffe_log, number
from runtime.net.replay import Replay
from runtime.solvers.engine import EngineSetup, clip_factor
from runtime.solvers.history import History
from runtime.solvers.hooks import Score
from runtime.solvers.nets import share_trained_layers
from runtime.solvers.testing import Outcome, read_scores, run_test_batches
from runtime.solvers.update_rule import ParamSlot


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
        rates = [self.rule.step_rate(slot, rate, iteration) for slot in self.slots]
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
