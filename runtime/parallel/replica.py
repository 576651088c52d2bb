"""Replica: one net on one backend, its run of shards, and the part of the weights it updates.

Every replica is told to do the same things at the same time; see crew.py for who tells them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from runtime.backend.base import Array, HostArray
from runtime.net import Net
from runtime.parallel.collective import Collective, Parcel
from runtime.parallel.flat_params import GradientBuffers, Layout, Segment
from runtime.parallel.shard_plan import ShardPlan
from runtime.parallel.tree import Node, cover, evaluate, merges_after
from runtime.solvers.nets import share_trained_layers
from runtime.solvers.testing import Outcome, run_batch
from runtime.solvers.update_rule import ParamSlot, UpdateRule
from runtime.syncedmem import Storage, SyncedMemory


class Replica:
    """`shared_weights` says that all replicas' nets look at the same weights in host memory."""

    def __init__(
        self,
        net: Net,
        tests: Sequence[Net],
        rule: UpdateRule,
        plan: ShardPlan,
        collective: Collective,
        shared_weights: bool = False,
    ) -> None:
        self.net, self.tests, self.rule, self.plan = net, list(tests), rule, plan
        self.collective = collective
        self.shared_weights = shared_weights
        self.rank, self.size = collective.rank, collective.size
        self.backend = net.backend
        self.params = net.params.learnable
        self.layout = Layout([blob.count() for blob in self.params])
        self.buffers = GradientBuffers(net, self.layout)
        self.segments = self.layout.segments(self.rank, self.size)
        self._owned: Array | None = None
        self._gradient: Array | None = None
        self._at = 0
        self._history = [
            [self._memory(segment) for segment in self.segments] for _ in range(rule.histories)
        ]

    # Gradients.

    def compute(self, first_pass: int) -> list[list[Outcome]]:
        """Compute this replica's shards and add up everybody's; outcomes by shard and pass."""
        run, outcomes = self.plan.run_of(self.rank), []
        kept: list[tuple[Node, Array]] = []
        for shard in run:
            self.buffers.begin()
            outcomes.append(self._passes(first_pass, shard))
            node = (shard, shard + 1)
            for _ in range(merges_after(self.plan.shards, shard, run.start)):
                left, array = kept.pop()
                self.buffers.merge(array)
                node = (left[0], node[1])
            if shard + 1 < run.stop:
                kept.append((node, self.buffers.take()))
            else:
                kept.append((node, self.buffers.current))
        self._reduce(kept)
        return outcomes

    def forward(self, first_pass: int) -> list[list[Outcome]]:
        """Compute this replica's shards forward only, one pass each."""
        outcomes = []
        for shard in self.plan.run_of(self.rank):
            self.net.context.pass_number = first_pass + shard
            outcomes.append([run_batch(self.net)])
        return outcomes

    def _passes(self, first_pass: int, shard: int) -> list[Outcome]:
        iter_size, outcomes = self.plan.iter_size, []
        for i in range(iter_size):
            self.net.context.pass_number = first_pass + shard * iter_size + i
            outcomes.append(run_batch(self.net))
            self.net.backward()
        return outcomes

    def _reduce(self, kept: list[tuple[Node, Array]]) -> None:
        """Add up everybody's sums for the part that this replica owns, in the tree's order."""
        if self.size == 1:
            self._gradient, self._at = kept[0][1], 0
        else:
            self._exchange_sums(kept)
            for _, array in kept[:-1]:
                self.buffers.give_back(array)
        if self.segments and self._gradient is not None:
            at, count = self.layout.part(self.rank, self.size)
            view = self.backend.view(self._gradient, at - self._at, (count,))
            self.backend.scal(1.0 / self.plan.shards, view)

    def _exchange_sums(self, kept: list[tuple[Node, Array]]) -> None:
        root = (0, self.plan.shards)
        outgoing = []
        for peer in range(self.size):
            at, count = self.layout.part(peer, self.size)
            outgoing.append([self._read(self.backend.view(a, at, (count,))) for _, a in kept])
        at, count = self.layout.part(self.rank, self.size)
        runs = [self.plan.run_of(peer) for peer in range(self.size)]
        nodes = [cover(root, run.start, run.stop) for run in runs]
        incoming = self.collective.exchange(outgoing, [[count] * len(n) for n in nodes])
        parts = {
            node: array
            for peer, arrays in zip(nodes, incoming)
            for node, array in zip(peer, arrays)
        }
        total = evaluate(root, parts, np.add)
        if self._owned is None and count:
            self._owned = self.backend.empty(count, self.backend.dtype)
        if self._owned is not None:
            self.backend.upload(total, self._owned)
        self.collective.release()
        self._gradient, self._at = self._owned, at

    # Updates.

    def norm_parts(self) -> list[float]:
        """Sums of squares of the owned gradient, chunk by chunk."""
        return [
            self.backend.sumsq(self.backend.view(self._slice(segment), offset, (count,)))
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
                self.backend.scal(factor, slot.diff.mutable_dev())
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
        weights = self.backend.view(self._flat(index), segment.start, (segment.count,))
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
        mine = []
        for segment in self.segments:
            source = self._slice(segment) if owned else self._view(whole, segment)
            mine.append(self._read(source))
        parts = [self.layout.segments(peer, self.size) for peer in range(self.size)]
        incoming = self.collective.exchange(
            [mine] * self.size, [[segment.count for segment in part] for part in parts]
        )
        for peer, arrays in enumerate(incoming):
            if peer != self.rank or owned:
                for segment, array in zip(parts[peer], arrays):
                    self.backend.upload(array, self._view(whole, segment))
        self.collective.release()

    # What snapshots need.

    def load_weights(self) -> None:
        """Take over the first replica's weights."""
        if self.shared_weights:
            self._touch()
            return
        whole = [self._flat(index) for index in range(len(self.params))]
        mine = [self._read(array) for array in whole] if self.rank == 0 else []
        sizes = [self.layout.counts] + [[] for _ in range(self.size - 1)]
        incoming = self.collective.exchange([mine] * self.size, sizes)
        if self.rank:
            for array, values in zip(whole, incoming[0]):
                self.backend.upload(values, array)
        self.collective.release()

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
        return run_batch(net)

    def close(self) -> None:
        """Stop readers; the first replica's nets are the solver's to close."""
        for net in (self.net, *self.tests) if self.rank else ():
            net.close()

    # Looks at memory.

    def _flat(self, index: int) -> Array:
        """A weight blob, flat and to write: whoever keeps something derived from it learns so."""
        storage = self.params[index].data.storage
        return self.backend.view(storage.device(write=True), 0, (self.layout.counts[index],))

    def _blob_of(self, flat: Array, index: int) -> Array:
        return self.backend.view(flat, self.layout.offsets[index], (self.layout.counts[index],))

    def _view(self, whole: Sequence[Array], segment: Segment) -> Array:
        return self.backend.view(whole[segment.index], segment.start, (segment.count,))

    def _slice(self, segment: Segment) -> Array:
        """A segment of the gradient that this replica has added up."""
        return self.backend.view(self._gradient, segment.at - self._at, (segment.count,))

    def _read(self, array: Array) -> HostArray:
        """An array on the host: itself, or a copy."""
        if self.backend.shares_host_memory:
            shared: HostArray = array
            return shared
        host = np.empty(array.size, self.backend.dtype)
        self.backend.download(array, host)
        return host

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
