"""Engine: batches in, gradients out; gradients in, new weights out. The seam of parallelism.

A solver knows when to compute and when to update; its engine knows on what. This one works on one
net on one backend. One that splits the batch over several has the same methods.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Any

from prototxt_gen.errors import VerydeepError
from runtime.core.blob import Blob
from runtime.logs.glog import caffe_log, number
from runtime.net import Net
from runtime.net.replay import Replay
from runtime.solvers.hooks import Score
from runtime.solvers.testing import read_scores
from runtime.solvers.update_rule import ParamSlot, UpdateRule

log = logging.getLogger("verydeep.solver")


class Engine:
    """One net, its update rule and its history.

    `shards` is the number of equal parts in which a batch's gradient is computed; the clock of the
    net counts each of them as a pass.
    """

    shards = 1

    def __init__(self, net: Net, rule: UpdateRule) -> None:
        self.net = net
        self.rule = rule
        recorder = net.backend.recorder
        self._replay = None if recorder is None else Replay(recorder)
        params = net.params.learnable
        self.history = [
            Blob(net.backend, blob.shape, f"history of {blob.name}")
            for _ in range(rule.histories)
            for blob in params
        ]
        self.slots = [
            ParamSlot(
                name=blob.name,
                data=blob.data,
                diff=blob.diff,
                history=[self.history[i + k * len(params)].data for k in range(rule.histories)],
                lr_mult=net.params.lr_mult[i],
                decay_mult=net.params.decay_mult[i],
            )
            for i, blob in enumerate(params)
        ]

    @property
    def pass_number(self) -> int:
        """The clock of the training data."""
        return self.net.context.pass_number

    @pass_number.setter
    def pass_number(self, value: int) -> None:
        self.net.context.pass_number = value

    def compute_loss(self) -> float:
        """Run one pass forward."""
        return self.net.forward()

    def scores(self) -> list[Score]:
        """The outputs of the last pass."""
        return read_scores(self.net)

    def compute_gradients(self, iter_size: int) -> float:
        """Add up the gradients of `iter_size` passes; return their mean loss."""
        self.net.clear_param_diffs()
        loss = 0.0
        for _ in range(iter_size):
            loss += self.net.forward()
            self.net.backward()
        return loss / iter_size

    def apply_update(self, param: Any, rate: float, iteration: int) -> None:
        """Clip the summed gradient, divide it by iter_size, regularise and step: in that order."""
        self.clip(float(param.clip_gradients))
        step = partial(self._update_all, param, rate, iteration)
        if self._replay is None or not self.rule.only_ops or param.debug_info:
            step()
            return
        rates = [float(self.rule.local_rate(slot, rate)) for slot in self.slots]
        self._replay.begin((param.iter_size, self.rule.leaves_update), rates=rates)
        if not self._replay.replayed(0):
            self._replay.do(0, step)
        self._replay.end()

    def _update_all(self, param: Any, rate: float, iteration: int) -> None:
        for slot in self.slots:
            if param.iter_size != 1:
                self.net.backend.vectors.scal(1.0 / param.iter_size, slot.diff.mutable_dev())
            if param.debug_info:
                self._update_with_debug_line(slot, rate, iteration)
            else:
                self.rule.update(slot, rate, iteration)

    def clip(self, limit: float) -> None:
        """Scale the gradient down where its norm exceeds the limit; a negative limit is none."""
        if limit < 0:
            return
        backend = self.net.backend
        norm = math.sqrt(sum(backend.vectors.sumsq(slot.diff.dev()) for slot in self.slots))
        if norm > limit:
            factor = limit / norm
            caffe_log(
                "sgd_solver.cpp:92",
                "Gradient clipping: scaling down gradients (L2 norm %s > %s) by scale factor %s",
                number(norm),
                number(limit),
                number(factor),
            )
            for slot in self.slots:
                backend.vectors.scal(factor, slot.diff.mutable_dev())

    def restore_history(self, history: list[Any], where: str, error: type[VerydeepError]) -> None:
        """Take over the history of a solverstate.

        Raises:
            error: another number of blobs, or other shapes, than this net and solver type have.
        """
        if len(history) != len(self.history):
            raise error(
                f"{where}: Incorrect length of history blobs.; expected {len(self.history)} "
                f"({self.rule.type} over {len(self.slots)} weight blobs), got {len(history)}; "
                "resume with the net and the solver type that wrote it"
            )
        # Checked whole before the first blob is touched.
        for blob, values in zip(self.history, history):
            if tuple(values.shape) != blob.shape and (
                values.size != blob.count() or values.ndim != 4
            ):
                raise error(
                    f"{where}: {blob.name}; expected shape {blob.shape}, got "
                    f"{tuple(values.shape)}; resume with the net that wrote it"
                )
        for blob, values in zip(self.history, history):
            blob.data.mutable_host()[...] = values.reshape(blob.shape)

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
