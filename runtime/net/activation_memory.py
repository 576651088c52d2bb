"""Activations that share memory, planned from the steps at which each is used.

A blob is needed from the layer that writes it to the last layer that reads it; in training also in
the backward steps of these layers. Blobs that are not needed at the same time may share memory.
After a pass only the inputs, the outputs and the blobs in `Sharing.keep` have their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from prototxt_gen.integers import round_up
from runtime.backend.base import Array, Backend
from runtime.core.blob import Blob
from runtime.core.sharing import Sharing
from runtime.core.synced_memory import Storage, SyncedMemory
from runtime.net.wiring import Wiring

_ALIGNMENT = 64
"""Elements; a multiple of a cache line of a CPU and of the widest load of a GPU."""


class SharedWiring(Wiring, Protocol):
    """The wiring of a net whose activations are to share memory."""

    backend: Backend
    blobs: dict[str, Blob]
    outputs: list[str]

    @property
    def learns(self) -> bool:
        """Whether the net runs backward."""

    def reshape(self) -> None:
        """Shape all layers for the current shapes of the inputs."""


@dataclass(frozen=True)
class Span:
    """Memories of one storage, needed from time `first` to time `last`.

    In a net of n layers, layer i runs forward at time i and backward at time 2n-1-i.

    Units: `count` in elements.
    """

    memories: tuple[SyncedMemory, ...]
    count: int
    first: int
    last: int

    def overlaps(self, other: Span) -> bool:
        """Whether both are needed at the same time."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """The offset of each span in one array. Units: `offsets` and `total` in elements."""

    spans: tuple[Span, ...]
    offsets: tuple[int, ...]
    total: int


class SharedActivations:
    """Plans the activations of a net and binds its blobs to the array of a Sharing."""

    def __init__(self, net: SharedWiring, sharing: Sharing) -> None:
        self._net = net
        self._sharing = sharing
        self._plan: MemoryPlan | None = None
        self._sources = [
            blob
            for layer, top in zip(net.layers, net.tops)
            if not layer.param.bottom
            for blob in top
        ]
        self._inputs: list[tuple[int, ...]] = []
        self._array: Array = None

    def refresh(self) -> None:
        """Bind the blobs before a pass, if their shapes or the array have changed.

        Raises:
            DeviceError: there is too little memory for the array.
        """
        net = self._net
        inputs = [blob.shape for blob in self._sources]
        if self._plan is None or inputs != self._inputs:
            net.reshape()
            self._plan, self._inputs = plan_activations(net, self._sharing.keep), inputs
            self._array = None
        array = self._sharing.array(net.backend, self._plan.total)
        if array is not self._array:
            self._bind(self._plan, array)
            self._array = array

    def _bind(self, plan: MemoryPlan, array: Array) -> None:
        backend = self._net.backend
        for span, offset in zip(plan.spans, plan.offsets):
            view = backend.memory.view(array, offset, (span.count,))
            storage = Storage.around(backend, view, span.count, backend.dtype)
            for memory in span.memories:
                memory.bind(storage)


def plan_activations(net: SharedWiring, keep: Iterable[str] = ()) -> MemoryPlan:
    """The plan for a net in its current shapes; nothing is allocated.

    Blobs in `keep` are not in the plan and have their own memory.
    """
    spans = [*_data_spans(net, set(keep)), *_diff_spans(net)]
    offsets, total = pack(spans)
    return MemoryPlan(tuple(spans), tuple(offsets), total)


def pack(spans: Sequence[Span]) -> tuple[list[int], int]:
    """Offsets at which spans that are needed at the same time do not overlap, and the total size.

    The largest spans come first, each at the lowest free offset.

    Units: elements.
    """
    offsets = [0] * len(spans)
    placed: list[int] = []
    total = 0
    for index in sorted(range(len(spans)), key=lambda i: (-spans[i].count, spans[i].first)):
        span, offset = spans[index], 0
        taken = [i for i in placed if spans[i].overlaps(span)]
        for other in sorted(taken, key=lambda i: offsets[i]):
            if offset + span.count <= offsets[other]:
                break
            offset = max(offset, round_up(offsets[other] + spans[other].count, _ALIGNMENT))
        offsets[index] = offset
        placed.append(index)
        total = max(total, offset + span.count)
    return offsets, total


def _data_spans(net: SharedWiring, keep: set[str]) -> Iterator[Span]:
    """The spans of data: from the first layer that writes or reads a blob to the last."""
    kept = keep | set(net.outputs) | _sources_and_losses(net)
    weights = {id(blob.data.storage) for layer in net.layers for blob in layer.blobs}
    for memories, blobs in _by_storage(net, lambda blob: blob.data):
        if id(memories[0].storage) in weights or any(blob.name in kept for blob in blobs):
            continue
        names = {blob.name for blob in blobs}
        yield _span(memories, [time for i in _users(net, names) for time in _times(net, i)])


def _diff_spans(net: SharedWiring) -> Iterator[Span]:
    """The spans of gradients, for blobs whose gradient is written before it is read."""
    if not net.learns:
        return
    kept = _sources_and_losses(net)
    weights = {id(blob.diff.storage) for layer in net.layers for blob in layer.blobs}
    for memories, blobs in _by_storage(net, lambda blob: blob.diff):
        if id(memories[0].storage) in weights or any(blob.name in kept for blob in blobs):
            continue
        if all(_is_written(net, blob.name) for blob in blobs):
            names = {blob.name for blob in blobs}
            yield _span(memories, [2 * len(net.layers) - 1 - i for i in _users(net, names)])


def _sources_and_losses(net: SharedWiring) -> set[str]:
    """Blobs that the caller or a reader fills, and losses, whose diffs hold their weights."""
    return {
        blob.name
        for layer, top in zip(net.layers, net.tops)
        for blob, weight in zip(top, layer.loss_weights)
        if weight or not layer.param.bottom
    }


def _span(memories: tuple[SyncedMemory, ...], times: Sequence[int]) -> Span:
    return Span(memories, max(memory.count for memory in memories), min(times), max(times))


def _by_storage(
    net: SharedWiring, memory_of: Callable[[Blob], SyncedMemory]
) -> Iterator[tuple[tuple[SyncedMemory, ...], list[Blob]]]:
    """The memories of the blobs, grouped by storage."""
    groups: dict[int, list[Blob]] = {}
    for blob in net.blobs.values():
        groups.setdefault(id(memory_of(blob).storage), []).append(blob)
    for blobs in groups.values():
        yield tuple(memory_of(blob) for blob in blobs), blobs


def _users(net: SharedWiring, names: set[str]) -> list[int]:
    """The layers that read or write one of these blobs."""
    return [
        i
        for i, layer in enumerate(net.layers)
        if not names.isdisjoint(layer.param.bottom) or not names.isdisjoint(layer.param.top)
    ]


def _times(net: SharedWiring, index: int) -> Iterator[int]:
    """The times at which a layer runs."""
    yield index
    if net.learns and net.layer_need_backward[index]:
        yield 2 * len(net.layers) - 1 - index


def _is_written(net: SharedWiring, name: str) -> bool:
    """Whether the last layer that reads a blob, which runs backward first, writes its diff."""
    for i in reversed(range(len(net.layers))):
        bottoms = list(net.layers[i].param.bottom)
        if name in bottoms:
            need = net.bottom_need_backward[i]
            return net.layer_need_backward[i] and all(
                down for bottom, down in zip(bottoms, need) if bottom == name
            )
    return False
