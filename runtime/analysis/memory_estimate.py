"""Estimates the memory of a net from its shapes, before it is allocated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from runtime.core.layer import Layer
from runtime.core.synced_memory import SyncedMemory
from runtime.net import Net
from runtime.net.activation_memory import plan_activations
from runtime.net.shape_net import batch_of, is_source, of_batch
from runtime.solvers.update_rule import create_rule

GIB = 1 << 30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device by purpose; memory that layers share or change in place counts once.

    A net that does not learn has no gradients and no history. Caches of a backend, other than the
    workspace of its plans, are not included.

    Units: bytes.
    """

    batch: int
    weights: int
    inputs: int
    """Images and labels."""
    activations: int
    """The other blobs; where activations share memory, it also contains their gradients."""
    buffers: int
    """Values that layers keep from forward to backward: masks, scales, probabilities."""
    workspace: int
    """Workspace of the convolution that needs most; all convolutions share it."""
    weight_gradients: int = 0
    activation_gradients: int = 0
    history: int = 0
    """The state of the solver for each weight, such as the momentum of SGD."""

    @property
    def forward(self) -> int:
        return self.weights + self.inputs + self.activations + self.buffers + self.workspace

    @property
    def backward(self) -> int:
        """Memory of forward and backward passes."""
        return self.forward + self.weight_gradients + self.activation_gradients

    @property
    def total(self) -> int:
        """All memory, with that of the solver for a net that learns."""
        return self.backward + self.history

    def as_dict(self) -> dict[str, int]:
        """The fields and the three sums."""
        sums = {"forward": self.forward, "forward_backward": self.backward, "total": self.total}
        return dataclasses.asdict(self) | sums


def memory_estimate(net: Net, batch: int | None = None, solver: Any = None) -> MemoryEstimate:
    """Estimate the memory of a net, for its batch or another, with the history of a solver.

    Blobs are counted by their storage, so memory that blobs share counts once.

    Raises:
        ShapeError: the batch is below 1.
        ProtoError: the type of the SolverParameter is unknown.
    """
    if batch is not None and batch != batch_of(net):
        net = of_batch(net, batch)
    count = _Counter()
    shared = _count_shared(net, count)
    weights = count.add(blob.data for blob in net.params.learnable)
    inputs = count.add(
        blob.data
        for layer, top in zip(net.layers, net.tops)
        if is_source(layer.param)
        for blob in top
    )
    activations = shared + count.add(blob.data for blob in net.blobs.values())
    buffers = count.add(memory for layer in net.layers for memory in _buffers(layer))
    estimate = MemoryEstimate(
        batch_of(net), weights, inputs, activations, buffers, _workspace(net.layers)
    )
    if not net.learns:
        return estimate
    histories = create_rule(solver, net.backend).histories if solver is not None else 0
    weight_gradients = count.add(blob.diff for blob in net.params.learnable)
    return dataclasses.replace(
        estimate,
        weight_gradients=weight_gradients,
        activation_gradients=count.add(_gradients(net)),
        history=histories * weight_gradients,
    )


def _count_shared(net: Net, count: _Counter) -> int:
    """Bytes of the activations that share memory."""
    if net.context.sharing is None:
        return 0
    plan = plan_activations(net, net.context.sharing.keep)
    count.add(memory for span in plan.spans for memory in span.memories)
    return plan.total * net.backend.dtype.itemsize


def budget_advice(net: Net, budget: int, batch: int | None = None, solver: Any = None) -> str:
    """Advice on how to fit a net into `budget` bytes; '' if it fits.

    For a net that learns it is a smaller batch_size with a larger iter_size: the same images per
    iteration, in several passes.
    """
    estimate = memory_estimate(net, batch, solver)
    if estimate.total <= budget:
        return ""
    images = estimate.batch
    excess = (
        f"net '{net.name}': a batch of {images} takes {in_gib(estimate.total)}; expected at most "
        f"the {in_gib(budget)} there are"
    )
    passes = passes_within(net, budget, images, solver)
    if passes is not None:
        smaller = memory_estimate(net, images // passes, solver)
        if not net.learns:
            return f"{excess}; use a batch of {smaller.batch}: {in_gib(smaller.total)}"
        done = int(solver.iter_size) if solver is not None else 1
        return (
            f"{excess}; set batch_size: {smaller.batch} in the net and iter_size: {passes * done} "
            f"in the solver: the same {images * done} images per iteration in "
            f"{in_gib(smaller.total)}"
        )
    least = memory_estimate(net, 1, solver)
    return (
        f"{excess}; even one image takes {in_gib(least.total)}: use a smaller net, or more memory"
    )


def passes_within(net: Net, budget: int, batch: int, solver: Any = None) -> int | None:
    """The fewest equal passes in which `batch` images fit into `budget` bytes; None if none do."""
    for passes in _divisors(batch):
        if memory_estimate(net, batch // passes, solver).total <= budget:
            return passes
    return None


def in_gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


class _Counter:
    """Adds up memory; each storage counts once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, memories: Iterable[SyncedMemory]) -> int:
        """Count memories, and return the bytes of storages that were not counted before."""
        total = 0
        for memory in memories:
            if id(memory.storage) not in self._seen:
                self._seen.add(id(memory.storage))
                total += storage_bytes(memory)
        return total


def storage_bytes(memory: SyncedMemory) -> int:
    return memory.storage.count * memory.storage.dtype.itemsize


def _buffers(layer: Layer) -> Iterator[SyncedMemory]:
    """The memory of a layer in addition to its blobs."""
    for value in vars(layer).values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, SyncedMemory):
                yield item


def _gradients(net: Net) -> Iterator[SyncedMemory]:
    """The diffs that a backward pass reads or writes."""
    for i, needed in enumerate(net.layer_need_backward):
        if needed:
            yield from (blob.diff for blob in net.tops[i])
            bottoms = zip(net.bottoms[i], net.bottom_need_backward[i])
            yield from (blob.diff for blob, down in bottoms if down)


def _workspace(layers: Iterable[Layer]) -> int:
    return max((layer.workspace_bytes for layer in layers), default=0)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
