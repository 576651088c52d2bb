"""How much memory a net will take, worked out from its shapes before any of it is taken."""

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
    """Bytes on the device by what they hold; what layers share or work on in place counts once.

    A net that does not learn has no gradients and no history. What a backend keeps for its own
    speed, beyond the workspace that its plans name, is not in it.
    """

    batch: int
    weights: int
    inputs: int
    """Images and labels."""
    activations: int
    """The other blobs; where activations share memory, their gradients lie in it too."""
    buffers: int
    """What layers remember between forward and backward: masks, scales, probabilities."""
    workspace: int
    """Scratch of the convolution that needs most; all use the same."""
    weight_gradients: int = 0
    activation_gradients: int = 0
    history: int = 0
    """What the solver remembers of each weight: its momentum, for SGD."""

    @property
    def forward(self) -> int:
        return self.weights + self.inputs + self.activations + self.buffers + self.workspace

    @property
    def backward(self) -> int:
        """Forward and backward."""
        return self.forward + self.weight_gradients + self.activation_gradients

    @property
    def total(self) -> int:
        """All of it; for a net that learns, what a solver needs."""
        return self.backward + self.history

    def as_dict(self) -> dict[str, int]:
        """The fields and the three sums."""
        sums = {"forward": self.forward, "forward_backward": self.backward, "total": self.total}
        return dataclasses.asdict(self) | sums


def memory_estimate(net: Net, batch: int | None = None, solver: Any = None) -> MemoryEstimate:
    """What a net takes, for its own batch or another, with the history of a SolverParameter.

    Blobs are counted by the memory they look at, so a net that shares memory is counted as such.

    Raises:
        ShapeError: a batch below 1.
        ProtoError: a solver of a type that does not exist.
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
    """Bytes of the activations that share memory, which are not counted again."""
    if net.context.sharing is None:
        return 0
    plan = plan_activations(net, net.context.sharing.keep)
    count.add(memory for span in plan.spans for memory in span.memories)
    return plan.total * net.backend.dtype.itemsize


def budget_advice(net: Net, budget: int, batch: int | None = None, solver: Any = None) -> str:
    """A sentence that says how to make a net fit into `budget` bytes; '' where it does.

    A net that learns gets a smaller batch_size with a larger iter_size: the same images an
    iteration, in several passes.
    """
    estimate = memory_estimate(net, batch, solver)
    if estimate.total <= budget:
        return ""
    whole = estimate.batch
    excess = (
        f"net '{net.name}': a batch of {whole} takes {in_gib(estimate.total)}; expected at most "
        f"the {in_gib(budget)} there are"
    )
    passes = passes_within(net, budget, whole, solver)
    if passes is not None:
        smaller = memory_estimate(net, whole // passes, solver)
        if not net.learns:
            return f"{excess}; use a batch of {smaller.batch}: {in_gib(smaller.total)}"
        done = int(solver.iter_size) if solver is not None else 1
        return (
            f"{excess}; set batch_size: {smaller.batch} in the net and iter_size: {passes * done} "
            f"in the solver: the same {whole * done} images an iteration in {in_gib(smaller.total)}"
        )
    least = memory_estimate(net, 1, solver)
    return (
        f"{excess}; even one image takes {in_gib(least.total)}: use a smaller net, or more memory"
    )


def passes_within(net: Net, budget: int, batch: int, solver: Any = None) -> int | None:
    """In how few equal passes `batch` images fit into `budget` bytes; None where not even one."""
    for passes in _divisors(batch):
        if memory_estimate(net, batch // passes, solver).total <= budget:
            return passes
    return None


def in_gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


class _Counter:
    """Adds up memory, each storage once however many look at it."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, memories: Iterable[SyncedMemory]) -> int:
        """Bytes of the storages that were not counted before."""
        total = 0
        for memory in memories:
            if id(memory.storage) not in self._seen:
                self._seen.add(id(memory.storage))
                total += storage_bytes(memory)
        return total


def storage_bytes(memory: SyncedMemory) -> int:
    return memory.storage.count * memory.storage.dtype.itemsize


def _buffers(layer: Layer) -> Iterator[SyncedMemory]:
    """The memory that a layer has besides its blobs."""
    for value in vars(layer).values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, SyncedMemory):
                yield item


def _gradients(net: Net) -> Iterator[SyncedMemory]:
    """The diffs that a backward pass reads or writes."""
    for i, needed in enumerate(net.layer_need_backward):
        if needed:
            yield from (blob.diff for blob in net.tops[i])
            wanted = zip(net.bottoms[i], net.bottom_need_backward[i])
            yield from (blob.diff for blob, down in wanted if down)


def _workspace(layers: Iterable[Layer]) -> int:
    return max((layer.workspace_bytes for layer in layers), default=0)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
