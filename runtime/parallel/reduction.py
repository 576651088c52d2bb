"""Reduction: sums the gradients of all shards during the last backward pass.

The flat gradient is divided into buckets of whole weight blobs. A bucket is complete when the last
shard's backward pass has left the lowest layer that adds to it. It is then added to the earlier
shards' sums and sent, while the backward pass continues. In the paper's nets the fully-connected
layers have 89 % of the values and are complete first; in host memory their factors are sent instead
(factors.py). The order of additions is fixed and does not depend on the timing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from runtime.backend.base import Array
from runtime.net import Net
from runtime.parallel import flat_params
from runtime.parallel.collective import Collective, Message, Pending
from runtime.parallel.factors import Factors
from runtime.parallel.flat_params import GradientBuffers
from runtime.parallel.shard_plan import ShardPlan
from runtime.parallel.tree import Node, cover, evaluate

BUCKET = 1 << 20
"""Elements of the smallest bucket, unless it is the last."""


@dataclass(frozen=True)
class Bucket:
    """Weight blobs first .. last-1: elements low .. high-1 of the flat gradient."""

    first: int
    last: int
    low: int
    high: int
    ready: int
    """The index of the lowest layer that adds to the bucket."""


def buckets_of(net: Net, counts: Sequence[int], apart: Collection[int] = ()) -> list[Bucket]:
    """The buckets of a net in the order in which the backward pass completes them.

    Each weight blob in `apart` has a bucket of its own.
    """
    buckets: list[Bucket] = []
    last = len(counts)
    high = end = sum(counts)
    for index in reversed(range(len(counts))):
        end -= counts[index]
        if high - end >= BUCKET or index == 0 or index in apart or index - 1 in apart:
            buckets.append(Bucket(index, last, end, high, _lowest_layer(net, index)))
            last, high = index, end
    return buckets


def _lowest_layer(net: Net, index: int) -> int:
    """The index of the lowest layer with a weight blob."""
    blob = net.params.learnable[index]
    return next(position for position, layer in enumerate(net.layers) if blob in layer.blobs)


class Reduction:
    """Computes the part of the mean gradient that one replica owns, in the net's own gradient."""

    def __init__(
        self,
        net: Net,
        buffers: GradientBuffers,
        plan: ShardPlan,
        link: Collective,
        factors: Mapping[int, Factors] = MappingProxyType({}),
    ) -> None:
        self.buffers, self.plan, self.link = buffers, plan, link
        self.backend = net.backend
        self.factors = factors
        self.buckets = buckets_of(net, buffers.layout.counts, factors)
        self._parts = [buffers.layout.part(peer, link.size) for peer in range(link.size)]
        self._kept: list[Array] = []
        self._merged: list[Array] = []
        self._open = False
        self._next = 0
        self._posted: list[tuple[Bucket, Pending]] = []
        net.after_backward.append(self._after_layer)

    def open(self, kept: Sequence[Array], merged: Sequence[Array]) -> None:
        """Start the last backward pass: its layers complete the buckets.

        `merged` are added to the net's gradient; `kept` are sums that are sent separately.

        Shapes: flat arrays with all elements of the gradient.
        """
        self._kept, self._merged = list(kept), list(merged)
        self._next, self._open = 0, True
        self._posted = []

    def close(self) -> None:
        """Receive the sums of the other replicas and add them.

        Raises:
            TrainingError, PeerFailedError: see Pending.finish.
        """
        self._after_layer(0)
        self._open = False
        if self.link.size > 1:
            for bucket, pending in self._posted:
                self._add(bucket, pending.finish())
            self._posted = []
            self.link.release()

    def cancel(self) -> None:
        """Discard the state of a failed pass."""
        self._open = False
        self._posted = []

    def _after_layer(self, index: int) -> None:
        while self._open and self._next < len(self.buckets):
            bucket = self.buckets[self._next]
            if bucket.ready < index:
                return
            self._next += 1
            self._complete(bucket)

    def _complete(self, bucket: Bucket) -> None:
        alone = self.link.size == 1
        factors = self.factors.get(bucket.first)
        if factors is not None:
            if alone:
                factors.multiply(None, 0, bucket.high - bucket.low)
            else:
                posted = self.link.post([factors.message()] * self.link.size, factors.sizes())
                self._posted.append((bucket, posted))
            return
        self.buffers.settle(bucket.first, bucket.last)
        scale = 1.0 / self.plan.shards if alone else 1.0
        self.buffers.merge(self._merged, bucket.low, bucket.high, scale)
        if alone:
            return
        sums = [*self._kept, self.buffers.current]
        outgoing = []
        for peer in range(self.link.size):
            low, count = self._share(bucket, peer)
            outgoing.append(
                [self.backend.memory.view(a, low, (count,)) for a in sums] if count else []
            )
        count = self._share(bucket, self.link.rank)[1]
        sizes = [[count] * len(self._nodes(peer)) if count else [] for peer in range(len(outgoing))]
        self._posted.append((bucket, self.link.post(outgoing, sizes)))

    def _share(self, bucket: Bucket, owner: int) -> tuple[int, int]:
        """First element and number of elements of a bucket that one replica owns."""
        start, count = self._parts[owner]
        low, high = max(start, bucket.low), min(start + count, bucket.high)
        return low, max(0, high - low)

    def _nodes(self, peer: int) -> list[Node]:
        run = self.plan.run_of(peer)
        return cover((0, self.plan.shards), run.start, run.stop)

    def _add(self, bucket: Bucket, incoming: Sequence[Message]) -> None:
        """Sum the owned part of a bucket in the order of the tree, into the net's gradient."""
        low, count = self._share(bucket, self.link.rank)
        if bucket.first in self.factors:
            start = low - bucket.low
            self.factors[bucket.first].multiply(incoming, start, start + count)
            return
        step = flat_params.PIECE if self.backend.shares_host_memory else max(1, count)
        for offset in range(0, count, step):
            shape = (min(step, count - offset),)
            parts: dict[Node, tuple[Array, bool]] = {}
            for peer, arrays in enumerate(incoming):
                nodes = self._nodes(peer)
                for node, array in zip(nodes, arrays):
                    own = peer == self.link.rank and node == nodes[-1]
                    parts[node] = (self.backend.memory.view(array, offset, shape), own)
            total, _ = evaluate((0, self.plan.shards), parts, self._sum)
            self.backend.vectors.scal(1.0 / self.plan.shards, total)

    def _sum(self, left: tuple[Array, bool], right: tuple[Array, bool]) -> tuple[Array, bool]:
        """Add in place, into the net's gradient if it is one of the two; a+b equals b+a."""
        target, other = (right, left) if right[1] else (left, right)
        self.backend.vectors.axpy(1.0, other[0], target[0])
        return target
