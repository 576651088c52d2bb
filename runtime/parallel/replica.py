"""Replica: a net on one backend that computes some shards and updates some of the weights.

All replicas execute the same commands in the same order; group.py sends them.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from runtime.backend.base import Array, HostArray
from runtime.core.synced_memory import Storage, SyncedMemory
from runtime.net import Net
from runtime.parallel.collective import Collective, Message
from runtime.parallel.factors import choose_factors
from runtime.parallel.flat_params import GradientBuffers, Layout, Segment
from runtime.parallel.reduction import Reduction
from runtime.parallel.shard_plan import ShardPlan
from runtime.parallel.tree import Node, merges_after
from runtime.solvers.nets import share_trained_layers
from runtime.solvers.testing import Outcome, run_batch, run_test_batch
from runtime.solvers.update_rule import ParamSlot, UpdateRule


class Command(enum.Enum):
    """A step that all replicas execute together: the methods of Replica."""

    FORWARD = enum.auto()
    COMPUTE = enum.auto()
    NORM_PARTS = enum.auto()
    UPDATE = enum.auto()
    LOAD_WEIGHTS = enum.auto()
    SEND_HISTORY = enum.auto()
    TAKE_HISTORY = enum.auto()
    TEST = enum.auto()


class Replica:
    """One of `collective.size` nets with the same weights.

    With `shared_weights` the nets of all replicas use the same weights in host memory. `link` moves
    arrays of the backend; on a backend in host memory it is the collective.
    """

    def __init__(
        self,
        net: Net,
        tests: Sequence[Net],
        rule: UpdateRule,
        plan: ShardPlan,
        collective: Collective,
        shared_weights: bool = False,
        link: Collective | None = None,
    ) -> None:
        self.net, self.tests, self.rule, self.plan = net, list(tests), rule, plan
        self.collective = collective
        self.link = collective if link is None else link
        self.shared_weights = shared_weights
        self.rank, self.size = collective.rank, collective.size
        self.backend = net.backend
        self.params = net.params.learnable
        self.layout = Layout([blob.count() for blob in self.params])
        self.factors = choose_factors(net, plan, self.rank)
        self.buffers = GradientBuffers(net, self.layout, apart=self.factors)
        self.reduction = Reduction(net, self.buffers, plan, self.link, self.factors)
        self.segments = self.layout.segments(self.rank, self.size)
        self._history = [
            [self._memory(segment) for segment in self.segments] for _ in range(rule.histories)
        ]

    def execute(self, command: Command, args: Sequence[Any]) -> Any:
        """Execute a command; returns the result of its method.

        Raises:
            VerydeepError: see the methods.
        """
        match command:
            case Command.FORWARD:
                return self.forward(*args)
            case Command.COMPUTE:
                return self.compute(*args)
            case Command.NORM_PARTS:
                return self.norm_parts()
            case Command.UPDATE:
                return self.update(*args)
            case Command.LOAD_WEIGHTS:
                return self.load_weights()
            case Command.SEND_HISTORY:
                return self.send_history()
            case Command.TAKE_HISTORY:
                return self.take_history(*args)
            case Command.TEST:
                return self.test(*args)

    # Gradients.

    def compute(self, first_pass: int) -> list[list[Outcome]]:
        """Compute this replica's shards and its part of the sum over all shards.

        Returns the outcomes by shard and pass.

        Raises:
            DataError, DeviceError: a pass failed.
            TrainingError: another replica failed or is late.
        """
        self.reduction.cancel()
        for factors in self.factors.values():
            factors.begin()
        try:
            return self._compute_shards(first_pass)
        finally:
            for factors in self.factors.values():
                factors.end()

    def _compute_shards(self, first_pass: int) -> list[list[Outcome]]:
        shards, outcomes = self.plan.run_of(self.rank), []
        # Complete sums of earlier shards; those that are not merged yet stay until the last shard.
        sums: list[tuple[Node, Array]] = []
        for shard in shards:
            self.buffers.begin()
            count = len(sums) - merges_after(self.plan.shards, shard, shards.start)
            sums, merged = sums[:count], sums[count:][::-1]
            arrays = [array for _, array in merged]
            if shard + 1 < shards.stop:
                outcomes.append(self._run_passes(first_pass, shard))
                self.buffers.merge_all(arrays)
                low = merged[-1][0][0] if merged else shard
                sums.append(((low, shard + 1), self.buffers.take()))
            else:
                others = [array for _, array in sums]
                begin = functools.partial(self.reduction.open, others, arrays)
                outcomes.append(self._run_passes(first_pass, shard, begin))
                self.reduction.close()
                arrays += others
            for array in arrays:
                self.buffers.give_back(array)
        return outcomes

    def forward(self, first_pass: int) -> list[list[Outcome]]:
        """Run one forward pass of each of this replica's shards; outcomes as of `compute`."""
        outcomes = []
        for shard in self.plan.run_of(self.rank):
            self.net.context.pass_number = first_pass + shard
            outcomes.append([run_batch(self.net)])
        return outcomes

    def _run_passes(
        self, first_pass: int, shard: int, before_last: Callable[[], None] | None = None
    ) -> list[Outcome]:
        iter_size, outcomes = self.plan.iter_size, []
        for i in range(iter_size):
            self.net.context.pass_number = first_pass + shard * iter_size + i
            outcomes.append(run_batch(self.net))
            if before_last is not None and i + 1 == iter_size:
                before_last()
            self.net.backward()
        return outcomes

    # Updates.

    def norm_parts(self) -> list[float]:
        """The sum of squares of each chunk of the owned gradient."""
        return [
            self.backend.vectors.sumsq(
                self.backend.memory.view(self._slice(segment), offset, (count,))
            )
            for segment in self.segments
            for offset, count in segment.chunks()
        ]

    def update(self, factors: Sequence[float], rate: float, iteration: int, diffs: bool) -> None:
        """Scale the owned gradient, update the owned weights, and exchange the new weights.

        With `diffs` the gradients are exchanged as well, for snapshots with diffs.

        Raises:
            TrainingError: another replica failed or is late.
        """
        for i, segment in enumerate(self.segments):
            slot = self._slot(i, segment)
            for factor in factors:
                self.backend.vectors.scal(factor, slot.diff.mutable_dev())
            self.rule.update(slot, rate, iteration)
            # A rule that computes on the host leaves the new values there.
            for memory in (slot.data, slot.diff):
                memory.dev()
        if self.shared_weights:
            self._wait_for_all()
        else:
            self._exchange_parts([self._flat(index) for index in range(len(self.params))])
        if diffs and self.size > 1:
            gradient = self.buffers.current
            blobs = [self._blob_of(gradient, index) for index in range(len(self.params))]
            self._exchange_parts(blobs, gradients=True)

    def _slot(self, position: int, segment: Segment) -> ParamSlot:
        params, index = self.net.params, segment.index
        weights = self.backend.memory.view(self._flat(index), segment.start, (segment.count,))
        return ParamSlot(
            name=params.names[index],
            data=self._around(weights, segment.count),
            diff=self._around(self._slice(segment), segment.count),
            history=[memories[position] for memories in self._history],
            lr_mult=params.lr_mult[index],
            decay_mult=params.decay_mult[index],
        )

    def _exchange_parts(self, whole: Sequence[Array], gradients: bool = False) -> None:
        """Send the owned parts of arrays to all replicas and copy theirs into the arrays.

        Shapes: one flat array for each weight blob.
        """
        own = [
            self._slice(segment) if gradients else self._view(whole, segment)
            for segment in self.segments
        ]
        parts = [self.layout.segments(peer, self.size) for peer in range(self.size)]
        incoming = self.link.exchange(
            [own] * self.size, [[segment.count for segment in part] for part in parts]
        )
        for peer, arrays in enumerate(incoming):
            if peer != self.rank:
                for segment, array in zip(parts[peer], arrays):
                    self.backend.memory.copy(array, self._view(whole, segment))
        self.link.release()

    # Weights and history.

    def load_weights(self) -> None:
        """Copy the first replica's weights.

        Raises:
            TrainingError: another replica failed or is late.
        """
        if self.shared_weights:
            self._wait_for_all()
            return
        whole = [self._flat(index) for index in range(len(self.params))]
        own = whole if self.rank == 0 else []
        sizes = [self.layout.counts] + [[] for _ in range(self.size - 1)]
        incoming = self.link.exchange([own] * self.size, sizes)
        if self.rank:
            for array, values in zip(whole, incoming[0]):
                self.backend.memory.copy(values, array)
        self.link.release()

    def send_history(self) -> list[list[HostArray]]:
        """Send the owned history to the first replica.

        Returns the history of all replicas on the first one, and an empty list on the others.

        Raises:
            TrainingError: another replica failed or is late.
        """
        own = [
            memory.host().reshape(-1).copy() for memories in self._history for memory in memories
        ]
        outgoing = [own if peer == 0 else [] for peer in range(self.size)]
        incoming = self.collective.exchange(outgoing, self._history_sizes(self.rank == 0))
        self.collective.release()
        return incoming if self.rank == 0 else []

    def take_history(self, messages: Sequence[Message] | None = None) -> None:
        """Replace the owned history by the values that the first replica sends.

        `messages` has the history of every replica; only the first replica gets it.

        Raises:
            TrainingError: another replica failed or is late.
        """
        outgoing = [[] for _ in range(self.size)] if messages is None else messages
        sizes = [self._history_sizes(True)[self.rank]] + [[] for _ in range(self.size - 1)]
        incoming = self.collective.exchange(outgoing, sizes)
        flat = [memory for memories in self._history for memory in memories]
        for memory, values in zip(flat, incoming[0]):
            memory.mutable_host().reshape(-1)[...] = values
        self.collective.release()

    def _history_sizes(self, receives: bool) -> list[list[int]]:
        if not receives:
            return [[] for _ in range(self.size)]
        sizes = []
        for peer in range(self.size):
            counts = [segment.count for segment in self.layout.segments(peer, self.size)]
            sizes.append(counts * self.rule.histories)
        return sizes

    # Tests.

    def test(self, net_id: int, passes: Sequence[int | None]) -> Outcome | None:
        """Run the pass passes[rank] of a test net; None if it is None.

        Raises:
            DataError, DeviceError: the pass failed.
        """
        pass_number = passes[self.rank]
        if pass_number is None:
            return None
        net = self.tests[net_id]
        if self.rank:
            share_trained_layers(net, self.net)
        net.context.pass_number = pass_number
        return run_test_batch(net)

    def close(self) -> None:
        """Close the link and the nets; the solver closes the first replica's nets."""
        self.link.close()
        for net in (self.net, *self.tests) if self.rank else ():
            net.close()

    # Views of memory.

    def _flat(self, index: int) -> Array:
        """A weight blob as a flat array that is marked as changed."""
        storage = self.params[index].data.storage
        return self.backend.memory.view(storage.device(write=True), 0, (self.layout.counts[index],))

    def _blob_of(self, flat: Array, index: int) -> Array:
        return self.backend.memory.view(
            flat, self.layout.offsets[index], (self.layout.counts[index],)
        )

    def _view(self, whole: Sequence[Array], segment: Segment) -> Array:
        return self.backend.memory.view(whole[segment.index], segment.start, (segment.count,))

    def _slice(self, segment: Segment) -> Array:
        """A segment of the summed gradient."""
        return self.backend.memory.view(self.buffers.current, segment.offset, (segment.count,))

    def _memory(self, segment: Segment) -> SyncedMemory:
        memory = SyncedMemory(self.backend)
        memory.reshape((segment.count,))
        return memory

    def _around(self, array: Array, count: int) -> SyncedMemory:
        memory = SyncedMemory(self.backend)
        memory.reshape((0,))
        memory.bind(Storage.around(self.backend, array, count, self.backend.dtype))
        memory.reshape((count,))
        return memory

    def _wait_for_all(self) -> None:
        """Wait until all replicas have written the shared weights."""
        self.collective.exchange([[]] * self.size, [[]] * self.size)
        self.collective.release()


def shards_in_order(results: Iterable[Sequence[Any]]) -> list[Any]:
    """The results of all replicas, one for each shard, in the order of the shards."""
    return [item for result in results for item in result]
