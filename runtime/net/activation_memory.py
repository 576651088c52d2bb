"""Activations that look at the same bytes, planned from who reads what and when.

A blob is needed from the layer that writes it to the last that reads it; in training the backward
pass reads it once more. Blobs that are never needed together share memory. After a pass only the
inputs, the outputs and what was asked for hold their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from runtime.backend.base import Array
from runtime.core.blob import Blob
from runtime.core.sharing import Sharing
from runtime.core.synced_memory import Storage, SyncedMemory
from runtime.net.wiring import Wiring

_ALIGNMENT = 64
"""Elements: whole cache lines on a host, and what a GPU's wide loads ask for."""


@dataclass(frozen=True)
class Span:
    """Memories of one storage, needed from step `first` to step `last`. Units: elements.

    Of n layers, layer i runs forward at step i and backward at step 2n-1-i.
    """

    memories: tuple[SyncedMemory, ...]
    count: int
    first: int
    last: int

    def meets(self, other: Span) -> bool:
        """Whether both are needed at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """Where each span stands in one array of `total` elements."""

    spans: tuple[Span, ...]
    offsets: tuple[int, ...]
    total: int


class SharedActivations:
    """One net's part in a Sharing: plans for the shapes there are, and binds its blobs."""

    def __init__(self, net: Wiring, sharing: Sharing) -> None:
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
        """Bind the blobs before a pass, where their shapes or the array are new."""
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


def plan_activations(net: Wiring, keep: Iterable[str] = ()) -> MemoryPlan:
    """The plan for a net in its present shapes; nothing is allocated."""
    spans = [*_data_spans(net, set(keep)), *_diff_spans(net)]
    offsets, total = pack(spans)
    return MemoryPlan(tuple(spans), tuple(offsets), total)


def pack(spans: Sequence[Span]) -> tuple[list[int], int]:
    """Offsets at which spans that meet in time do not overlap, and the end of the last one.

    The largest come first, each at the lowest place that is free.
    """
    offsets = [0] * len(spans)
    placed: list[int] = []
    total = 0
    for index in sorted(range(len(spans)), key=lambda i: (-spans[i].count, spans[i].first)):
        span, at = spans[index], 0
        beside = [i for i in placed if spans[i].meets(span)]
        for other in sorted(beside, key=lambda i: offsets[i]):
            if at + span.count <= offsets[other]:
                break
            at = max(at, _aligned(offsets[other] + spans[other].count))
        offsets[index] = at
        placed.append(index)
        total = max(total, at + span.count)
    return offsets, total


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT


def _data_spans(net: Wiring, keep: set[str]) -> Iterator[Span]:
    """Of the values that flow forward: from the first step that touches them to the last."""
    kept = keep | set(net.outputs) | _sources_and_losses(net)
    own = {id(blob.data.storage) for layer in net.layers for blob in layer.blobs}
    for memories, blobs in _groups(net, lambda blob: blob.data):
        if id(memories[0].storage) in own or any(blob.name in kept for blob in blobs):
            continue
        names = {blob.name for blob in blobs}
        steps = [step for i in _touching(net, names) for step in _steps(net, i)]
        yield _span(memories, steps)


def _diff_spans(net: Wiring) -> Iterator[Span]:
    """Of the gradients that flow backward, where a layer writes them before any reads them."""
    if not net.learns:
        return
    kept = _sources_and_losses(net)
    own = {id(blob.diff.storage) for layer in net.layers for blob in layer.blobs}
    for memories, blobs in _groups(net, lambda blob: blob.diff):
        if id(memories[0].storage) in own or any(blob.name in kept for blob in blobs):
            continue
        if all(_is_written(net, blob.name) for blob in blobs):
            names = {blob.name for blob in blobs}
            count = len(net.layers)
            yield _span(memories, [2 * count - 1 - i for i in _touching(net, names)])


def _sources_and_losses(net: Wiring) -> set[str]:
    """What comes in is the user's, or the reader's; a loss is read after the pass, and its diff
    is its weight.
    """
    return {
        blob.name
        for layer, top in zip(net.layers, net.tops)
        for blob, weight in zip(top, layer.loss_weights)
        if weight or not layer.param.bottom
    }


def _span(memories: tuple[SyncedMemory, ...], steps: Sequence[int]) -> Span:
    return Span(memories, max(memory.count for memory in memories), min(steps), max(steps))


def _groups(
    net: Wiring, of: Callable[[Blob], SyncedMemory]
) -> Iterator[tuple[tuple[SyncedMemory, ...], list[Blob]]]:
    """The blobs' memories by the storage they look at."""
    groups: dict[int, list[Blob]] = {}
    for blob in net.blobs.values():
        groups.setdefault(id(of(blob).storage), []).append(blob)
    for blobs in groups.values():
        yield tuple(of(blob) for blob in blobs), blobs


def _touching(net: Wiring, names: set[str]) -> list[int]:
    """The layers that read or write one of these blobs."""
    return [
        i
        for i, layer in enumerate(net.layers)
        if not names.isdisjoint(layer.param.bottom) or not names.isdisjoint(layer.param.top)
    ]


def _steps(net: Wiring, index: int) -> Iterator[int]:
    yield index
    if net.learns and net.layer_need_backward[index]:
        yield 2 * len(net.layers) - 1 - index


def _is_written(net: Wiring, name: str) -> bool:
    """Whether the last layer that reads a blob, the first to run backward, writes its diff."""
    for i in reversed(range(len(net.layers))):
        bottoms = list(net.layers[i].param.bottom)
        if name in bottoms:
            need = net.bottom_need_backward[i]
            return net.layer_need_backward[i] and all(
                down for bottom, down in zip(bottoms, need) if bottom == name
            )
    return False
