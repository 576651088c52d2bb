"""The weights of a net as one flat array, and the parts of it that the replicas own.

A replica owns a range of chunks: it sums their gradients, stores their history and updates them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from prototxt_gen.integers import round_up
from runtime.backend.base import Array, Backend
from runtime.core.blob import Blob
from runtime.core.synced_memory import Storage, SyncedMemory
from runtime.net import Net

CHUNK = 1 << 16
"""Elements of the largest part that is not divided; the sum of squares is computed by chunk."""
PIECE = 1 << 17
"""Elements that are added at a time, so that they stay in the cache."""


@dataclass(frozen=True)
class Segment:
    """Elements start .. stop-1 of weight blob `index`, from `offset` on in the flat array."""

    index: int
    start: int
    stop: int
    offset: int

    @property
    def count(self) -> int:
        return self.stop - self.start

    def chunks(self) -> list[tuple[int, int]]:
        """The (offset, count) of its chunks, relative to its start."""
        return [(i, min(CHUNK, self.count - i)) for i in range(0, self.count, CHUNK)]


class Layout:
    """The positions of weight blobs with these counts in a flat array."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = list(counts)
        self.offsets = [sum(self.counts[:i]) for i in range(len(self.counts))]
        self.total = sum(self.counts)

    def segments(self, owner: int, owners: int) -> list[Segment]:
        """The segments of one of `owners`: contiguous parts of nearly equal size, in chunks."""
        low, high = self.total * owner // owners, self.total * (owner + 1) // owners
        segments = []
        for index, (offset, count) in enumerate(zip(self.offsets, self.counts)):
            start, stop = _chunk_at(low - offset, count), _chunk_at(high - offset, count)
            if stop > start:
                segments.append(Segment(index, start, stop, offset + start))
        return segments

    def part(self, owner: int, owners: int) -> tuple[int, int]:
        """First element and number of elements of an owner's part of the flat array."""
        segments = self.segments(owner, owners)
        return (segments[0].offset if segments else 0), sum(s.count for s in segments)


def _chunk_at(position: int, count: int) -> int:
    """The chunk boundary of a blob at or after a position; 0 and `count` are boundaries."""
    return min(count, round_up(max(0, position), CHUNK))


class GradientBuffers:
    """Flat gradients of one net: the one its backward pass adds to, and sums of earlier shards.

    Weight blobs in `apart` have a place in the array but are written by Factors.
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
        """Bind the net's diffs to a gradient of zeros; returns the flat array.

        The memory is not written: the first pass that adds to a blob, or `settle`, overwrites it.
        """
        if self._bound is None:
            self._bound = self._spare.pop() if self._spare else self._new()
            self._bind(self._bound)
        for blob in self.params:
            blob.diff.clear()
        return self._bound

    def settle(self, first: int, last: int) -> None:
        """Write zeros to those of weight blobs first .. last-1 that no pass has added to."""
        for index in range(first, last):
            if index not in self.apart:
                self.params[index].diff.dev()

    def merge(self, arrays: Sequence[Array], low: int, high: int, scale: float = 1.0) -> None:
        """Add elements low .. high-1 of each array to the net's gradient; then scale the sums.

        In host memory the additions run piece by piece, because they are bound by memory.

        Shapes: flat arrays with all elements of the gradient.
        """
        backend = self.backend
        step = PIECE if backend.shares_host_memory else max(1, high - low)
        for start in range(low, high, step) if arrays or scale != 1.0 else ():
            shape = (min(step, high - start),)
            piece = backend.memory.view(self.current, start, shape)
            for array in arrays:
                backend.vectors.axpy(1.0, backend.memory.view(array, start, shape), piece)
            if scale != 1.0:
                backend.vectors.scal(scale, piece)

    def merge_all(self, arrays: Sequence[Array]) -> None:
        """Settle all weight blobs and add each array to the net's gradient.

        Shapes: flat arrays with all elements of the gradient.
        """
        self.settle(0, len(self.params))
        low = 0
        for index, (offset, count) in enumerate(zip(self.layout.offsets, self.layout.counts)):
            if index in self.apart:
                self.merge(arrays, low, offset)
                low = offset + count
        self.merge(arrays, low, self.layout.total)

    def take(self) -> Array:
        """Detach and return the net's settled gradient; `begin` binds another one."""
        taken = self.current
        self._bound = None
        return taken

    def give_back(self, array: Array) -> None:
        """Return an array from `take`, so that it is used again."""
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
    """The diffs with the same storage: the owner's, and those of layers that share the weight."""
    diffs = [owner.diff]
    for layer in net.layers:
        for blob in layer.blobs:
            if blob is not owner and blob.diff.storage is owner.diff.storage:
                diffs.append(blob.diff)
    return diffs
