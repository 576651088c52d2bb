"""Replica: one net on one backend, its run of shards, and the part of the weights it updates.

Every replica is told to do the same things at the same time; see crew.py for who tells them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from runtime.backend.base import Array, HostArray
from runtime.core.synced_memory import Storage, SyncedMemory
from runtime.net import Net
from runtime.parallel.collective import Collective, Parcel
from runtime.parallel.factors import choose_factors
from runtime.parallel.flat_params import GradientBuffers, Layout, Segment
from runtime.parallel.reduction import Reduction
from runtime.parallel.shard_plan import ShardPlan
from runtime.parallel.tree import Node, merges_after
from runtime.solvers.nets import share_trained_layers
from runtime.solvers.testing import Outcome, run_batch, run_test_batch
from runtime.solvers.update_rule import ParamSlot, UpdateRule


class Replica:
    """`shared_weights` says that all replicas' nets look at the same weights in host memory.

    `link` moves arrays of the backend; where those lie in host memory it is the collective itself.
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

    # Gradients.

    def compute(self, first_pass: int) -> list[list[Outcome]]:
        """Compute this replica's shards and add up everybody's; outcomes by shard and pass."""
        self.reduction.cancel()
        for factors in self.factors.values():
            factors.begin()
        try:
            return self._shards(first_pass)
        finally:
            for factors in self.factors.values():
                factors.end()

    def _shards(self, first_pass: int) -> list[list[Outcome]]:
        run, outcomes = self.plan.run_of(self.rank), []
        kept: list[tuple[Node, Array]] = []
        for shard in run:
            self.buffers.begin()
            count = len(kept) - merges_after(self.plan.shards, shard, run.start)
            kept, merged = kept[:count], kept[count:][::-1]
            arrays = [array for _, array in merged]
            if shard + 1 < run.stop:
                outcomes.append(self._passes(first_pass, shard))
                self.buffers.merge_all(arrays)
                low = merged[-1][0][0] if merged else shard
                kept.append(((low, shard + 1), self.buffers.take()))
            else:
                beside = [array for _, array in kept]
                begin = functools.partial(self.reduction.open, beside, arrays)
                outcomes.append(self._passes(first_pass, shard, begin))
                self.reduction.close()
                arrays += beside
            for array in arrays:
                self.buffers.give_back(array)
        return outcomes

    def forward(self, first_pass: int) -> list[list[Outcome]]:
        """Compute this replica's shards forward only, one pass each."""
        outcomes = []
        for shard in self.plan.run_of(self.rank):
            self.net.context.pass_number = first_pass + shard
            outcomes.append([run_batch(self.net)])
        return outcomes

    def _passes(
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
        """Sums of squares of the owned gradient, chunk by chunk."""
        return [
            self.backend.vectors.sumsq(
                self.backend.memory.view(self._slice(segment), offset, (count,))
            )
            for segment in self.segments
            for offset, count in segment.chunks()
        ]

    def update(self, factors: Sequence[float], rate: float, iteration: int, diffs: bool) -> None:
        """Scale the owned gradient, step, and give everybody the new weights.

        With `diffs` the gradients are given as well, for those who look at them.
        """
        for i, segment in enumerate(self.segments):
            slot = self._slot(i, segment)
            for factor in factors:
                self.backend.vectors.scal(factor, slot.diff.mutable_dev())
            self.rule.update(slot, rate, iteration)
            slot.data.dev(), slot.diff.dev()
        if self.shared_weights:
            self._touch()
        else:
            self._spread([self._flat(index) for index in range(len(self.params))])
        if diffs and self.size > 1:
            current = self.buffers.current
            self._spread([self._blob_of(current, i) for i in range(len(self.params))], owned=True)

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

    def _spread(self, whole: Sequence[Array], owned: bool = False) -> None:
        """Give everybody the owned parts of arrays, one a weight blob, and take theirs."""
        mine = [
            self._slice(segment) if owned else self._view(whole, segment)
            for segment in self.segments
        ]
        parts = [self.layout.segments(peer, self.size) for peer in range(self.size)]
        incoming = self.link.exchange(
            [mine] * self.size, [[segment.count for segment in part] for part in parts]
        )
        for peer, arrays in enumerate(incoming):
            if peer != self.rank:
                for segment, array in zip(parts[peer], arrays):
                    self.backend.memory.copy(array, self._view(whole, segment))
        self.link.release()

    # What snapshots need.

    def load_weights(self) -> None:
        """Take over the first replica's weights."""
        if self.shared_weights:
            self._touch()
            return
        whole = [self._flat(index) for index in range(len(self.params))]
        mine = whole if self.rank == 0 else []
        sizes = [self.layout.counts] + [[] for _ in range(self.size - 1)]
        incoming = self.link.exchange([mine] * self.size, sizes)
        if self.rank:
            for array, values in zip(whole, incoming[0]):
                self.backend.memory.copy(values, array)
        self.link.release()

    def send_history(self) -> list[list[HostArray]]:
        """Give the first replica the owned history; it gets everybody's, the others nothing."""
        mine = [
            memory.host().reshape(-1).copy() for memories in self._history for memory in memories
        ]
        outgoing = [mine if peer == 0 else [] for peer in range(self.size)]
        incoming = self.collective.exchange(outgoing, self._history_sizes(self.rank == 0))
        self.collective.release()
        return incoming if self.rank == 0 else []

    def take_history(self, parcels: Sequence[Parcel] | None = None) -> None:
        """Take the owned history from the first replica, which is given everybody's."""
        outgoing = [[] for _ in range(self.size)] if parcels is None else parcels
        sizes = [self._history_sizes(True)[self.rank]] + [[] for _ in range(self.size - 1)]
        incoming = self.collective.exchange(outgoing, sizes)
        flat = [memory for memories in self._history for memory in memories]
        for memory, values in zip(flat, incoming[0]):
            memory.mutable_host().reshape(-1)[...] = values
        self.collective.release()

    def _history_sizes(self, wanted: bool) -> list[list[int]]:
        if not wanted:
            return [[] for _ in range(self.size)]
        sizes = []
        for peer in range(self.size):
            counts = [segment.count for segment in self.layout.segments(peer, self.size)]
            sizes.append(counts * self.rule.histories)
        return sizes

    # Tests.

    def test(self, net_id: int, passes: Sequence[int | None]) -> Outcome | None:
        """Run this replica's batch of a test net, if it has one this time."""
        number = passes[self.rank]
        if number is None:
            return None
        net = self.tests[net_id]
        if self.rank:
            share_trained_layers(net, self.net)
        net.context.pass_number = number
        return run_test_batch(net)

    def close(self) -> None:
        """Stop readers; the first replica's nets are the solver's to close."""
        self.link.close()
        for net in (self.net, *self.tests) if self.rank else ():
            net.close()

    # Looks at memory.

    def _flat(self, index: int) -> Array:
        """A weight blob, flat and to write: whoever keeps something derived from it learns so."""
        storage = self.params[index].data.storage
        return self.backend.memory.view(storage.device(write=True), 0, (self.layout.counts[index],))

    def _blob_of(self, flat: Array, index: int) -> Array:
        return self.backend.memory.view(
            flat, self.layout.offsets[index], (self.layout.counts[index],)
        )

    def _view(self, whole: Sequence[Array], segment: Segment) -> Array:
        return self.backend.memory.view(whole[segment.index], segment.start, (segment.count,))

    def _slice(self, segment: Segment) -> Array:
        """A segment of the gradient that this replica has added up."""
        return self.backend.memory.view(self.buffers.current, segment.at, (segment.count,))

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

    def _touch(self) -> None:
        """Wait until everybody has written the shared weights."""
        self.collective.exchange([[]] * self.size, [[]] * self.size)
        self.collective.release()


def shards_in_order(results: Iterable[Sequence[Any]]) -> list[Any]:
    """What all replicas returned shard by shard, in the order of the shards."""
    return [item for result in results for item in result]
