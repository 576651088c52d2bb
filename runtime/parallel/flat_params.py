"""The weights of a net as one flat array, and who owns which part of it.

A replica owns a run of chunks: it adds up their gradients, keeps their history and updates them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from runtime.backend.base import Array, Backend
from runtime.core.blob import Blob
from runtime.core.synced_memory import Storage, SyncedMemory
from runtime.net import Net

CHUNK = 1 << 16
"""Elements that are never divided; norms are added up chunk by chunk, whoever owns them."""
PIECE = 1 << 17
"""Elements of several arrays that are added up at a time: they should stay in the cache."""


@dataclass(frozen=True)
class Segment:
    """Elements start .. stop-1 of weight blob `index`; they stand at `at` in the flat array."""

    index: int
    start: int
    stop: int
    at: int

    @property
    def count(self) -> int:
        return self.stop - self.start

    def chunks(self) -> list[tuple[int, int]]:
        """(offset, count) of its chunks, from its own start."""
        return [(i, min(CHUNK, self.count - i)) for i in range(0, self.count, CHUNK)]


class Layout:
    """Where weight blobs of these counts stand in a flat array."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = list(counts)
        self.offsets = [sum(self.counts[:i]) for i in range(len(self.counts))]
        self.total = sum(self.counts)

    def segments(self, owner: int, owners: int) -> list[Segment]:
        """What one of `owners` owns: a contiguous part, as equal as whole chunks allow."""
        low, high = self.total * owner // owners, self.total * (owner + 1) // owners
        found = []
        for index, (offset, count) in enumerate(zip(self.offsets, self.counts)):
            start, stop = _chunk_at(low - offset, count), _chunk_at(high - offset, count)
            if stop > start:
                found.append(Segment(index, start, stop, offset + start))
        return found

    def part(self, owner: int, owners: int) -> tuple[int, int]:
        """First element and number of elements of an owner's part of the flat array."""
        segments = self.segments(owner, owners)
        return (segments[0].at if segments else 0), sum(s.count for s in segments)


def _chunk_at(position: int, count: int) -> int:
    """The chunk boundary of a blob at or after a position; 0 and `count` are boundaries."""
    return min(count, -(-max(0, position) // CHUNK) * CHUNK)


class GradientBuffers:
    """Flat gradients of one net: the one that its backward pass adds to, and others kept aside.

    Weight blobs in `apart` have their place in the array, and somebody else writes it.
    """

    def __init__(self, net: Net, layout: Layout, apart: Collection[int] = ()) -> None:
        self.backend: Backend = net.backend
        self.layout = layout
        self.params: list[Blob] = net.params.learnable
        self.apart = frozenset(apart)
        self._sharers = [_sharers(net, blob) for blob in self.params]
        self._spare: list[Array] = []
        self._bound: Array | None = None

    def begin(self) -> Array:
        """Give the net a gradient of zeros to add to.

        Nothing is written: who adds to a blob first, or `settle`, does away with what is there.
        """
        if self._bound is None:
            self._bound = self._spare.pop() if self._spare else self._new()
            self._bind(self._bound)
        for blob in self.params:
            blob.diff.clear()
        return self._bound

    def settle(self, first: int, last: int) -> None:
        """Make weight blobs first .. last-1 hold their zeros, where no pass has added to them."""
        for index in range(first, last):
            if index not in self.apart:
                self.params[index].diff.dev()

    def merge(self, arrays: Sequence[Array], low: int, high: int, scale: float = 1.0) -> None:
        """Add elements low .. high-1 of arrays to the net's gradient, in turn; then scale them.

        In host memory piece by piece, while a piece is in the cache: this is bound by memory.
        """
        backend = self.backend
        step = PIECE if backend.shares_host_memory else max(1, high - low)
        for at in range(low, high, step) if arrays or scale != 1.0 else ():
            shape = (min(step, high - at),)
            piece = backend.memory.view(self.current, at, shape)
            for array in arrays:
                backend.vectors.axpy(1.0, backend.memory.view(array, at, shape), piece)
            if scale != 1.0:
                backend.vectors.scal(scale, piece)

    def merge_all(self, arrays: Sequence[Array]) -> None:
        """Settle all weight blobs and add arrays to all of the net's gradient, in turn."""
        self.settle(0, len(self.params))
        low = 0
        for index, (offset, count) in enumerate(zip(self.layout.offsets, self.layout.counts)):
            if index in self.apart:
                self.merge(arrays, low, offset)
                low = offset + count
        self.merge(arrays, low, self.layout.total)

    def take(self) -> Array:
        """Keep the net's gradient, once settled, aside; the net gets another one by `begin`."""
        taken = self.current
        self._bound = None
        return taken

    def give_back(self, array: Array) -> None:
        """Have an array that was taken for later use."""
        self._spare.append(array)

    @property
    def current(self) -> Array:
        """The flat gradient that the net adds to."""
        if self._bound is None:
            return self.begin()
        return self._bound

    def _new(self) -> Array:
        return self.backend.memory.empty(self.layout.total, self.backend.dtype)

    def _bind(self, array: Array) -> None:
        for index, memories in enumerate(self._sharers):
            offset, count = self.layout.offsets[index], self.layout.counts[index]
            view = self.backend.memory.view(array, offset, (count,))
            storage = Storage.around(self.backend, view, count, self.backend.dtype)
            for memory in memories:
                memory.bind(storage)


def _sharers(net: Net, owner: Blob) -> list[SyncedMemory]:
    """The diffs that look at an owner's: its own, and those of layers that share the weight."""
    found = [owner.diff]
    for layer in net.layers:
        for blob in layer.blobs:
            if blob is not owner and blob.diff.storage is owner.diff.storage:
                found.append(blob.diff)
    return found
