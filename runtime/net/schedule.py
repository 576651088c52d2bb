"""Schedules: the steps of a pass, planned once and run many times.

A step is the work of one layer, including a layer that is fused with it. `Net.forward`,
`Net.backward`, replay and `verydeep time` run these steps. Differences between passes of one net
(fusion) are decided in `schedule` only.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runtime.core.blob import Blob
from runtime.core.layer import Layer
from runtime.net.folded_layers import chains
from runtime.net.wiring import Wiring

Hook = Callable[[int], None]
"""Called with the index of a layer."""


class Direction(enum.Enum):
    """The direction of a pass."""

    FORWARD = enum.auto()
    BACKWARD = enum.auto()


class PassRange(NamedTuple):
    """The layers of a pass, from `first` to `last` (inclusive) in the order in which they run."""

    direction: Direction
    first: int
    last: int

    @property
    def layers(self) -> range:
        """The indices of the layers in the order in which they run."""
        if self.direction is Direction.FORWARD:
            return range(self.first, self.last + 1)
        return range(self.first, self.last - 1, -1)


def shape_layer(layer: Layer, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
    """Run the layer's `reshape`, and record the shapes of the bottoms in the layer."""
    layer.shaped_for = ()
    layer.reshape(bottom, top)
    layer.shaped_for = tuple([blob.shape for blob in bottom])


@dataclass(frozen=True, slots=True)
class Step:
    """The work of one layer in a pass."""

    index: int
    layer: Layer
    bottom: Sequence[Blob]
    top: Sequence[Blob]
    fused: int | None
    """The in-place ReLU that the step also computes: forward the next layer, backward the previous
    one."""
    folded: tuple[int, ...]
    """The next layers, which map channels in place and are folded into this one; forward only."""

    def run(self) -> float:
        """Compute the step; returns its part of the weighted sum of the losses."""
        raise NotImplementedError

    def follow_replay(self) -> None:
        """Do what else a replay of the step's ops must do on the host."""

    @property
    def recordable(self) -> bool:
        """Whether the step only calls ops of the backend, so it can be recorded and replayed."""
        raise NotImplementedError

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that the step computes."""
        fused = () if self.fused is None else (self.fused,)
        return (self.index, *self.folded, *fused)


@dataclass(frozen=True, slots=True)
class ForwardStep(Step):
    """Shape the tops of a layer and compute their data."""

    has_loss: bool
    followers: tuple[Layer, ...]
    """The layers of `folded`."""

    def run(self) -> float:
        layer, bottom, top = self.layer, self.bottom, self.top
        self._shape()
        if self.has_loss:
            layer.seed_loss_weights(top)
        relu = self.fused is not None
        if not (self.followers and layer.forward_folded(self.followers, bottom, top, relu)):
            self._run_separately(relu)
        return layer.weighted_loss(top) if self.has_loss else 0.0

    def _shape(self) -> None:
        shape_layer(self.layer, self.bottom, self.top)
        for layer in self.followers:
            shape_layer(layer, self.top, self.top)

    def _run_separately(self, relu: bool) -> None:
        """Run the layer and its followers; the last one also computes the ReLU."""
        *calls, last = ((self.layer, self.bottom), *((layer, self.top) for layer in self.followers))
        for layer, bottom in calls:
            layer.forward(bottom, self.top)
        if relu:
            last[0].forward_relu(last[1], self.top)
        else:
            last[0].forward(last[1], self.top)

    def follow_replay(self) -> None:
        """Shape the layer for the bottoms that were replayed: its backward step may be launched."""
        if self.layer.shaped_for != tuple([blob.shape for blob in self.bottom]):
            self._shape()

    @property
    def recordable(self) -> bool:
        """False with a loss, which is read on the host."""
        layers = (self.layer, *self.followers)
        return all(layer.only_ops for layer in layers) and not self.has_loss


@dataclass(frozen=True, slots=True)
class BackwardStep(Step):
    """Compute the gradients of a layer's bottoms and weights."""

    bottom_need_backward: Sequence[Sequence[bool]]
    """See Wiring. A step has no reference to the net, so the net is freed without garbage
    collection."""

    def run(self) -> float:
        propagate_down = self.bottom_need_backward[self.index]
        if self.fused is None:
            self.layer.backward(self.top, propagate_down, self.bottom)
        else:
            self.layer.backward_relu(self.top, propagate_down, self.bottom)
        return 0.0

    @property
    def recordable(self) -> bool:
        return self.layer.only_ops


def schedule(
    wiring: Wiring, span: PassRange, observed: bool, every_layer: bool = False
) -> tuple[Step, ...]:
    """The steps of a pass, in the order in which they run.

    In a pass that is `observed`, blobs may be read between two layers, so no layers are fused or
    folded. Backward, layers without a needed gradient have no step, except with `every_layer`;
    forward, no layers are folded with `every_layer`, since their backward steps may follow.
    """
    forward, needed = span.direction is Direction.FORWARD, wiring.bottom_need_backward
    layers = [i for i in span.layers if forward or every_layer or wiring.layer_need_backward[i]]
    pairs = _forward_pairs if forward else _backward_pairs
    fused = {} if observed else dict(pairs(wiring, layers))
    may_fold = forward and not (observed or every_layer)
    folded = dict(chains(wiring, span.first, span.last)) if may_fold else {}
    inside = {i for chain in folded.values() for i in chain} | set(fused.values())
    steps: list[Step] = []
    for i in layers:
        layer, bottom, top = wiring.layers[i], wiring.bottoms[i], wiring.tops[i]
        if i in inside:
            continue
        if forward:
            loss = any(layer.loss_weights)
            chain = folded.get(i, ())
            relu, followers = fused.get((i, *chain)[-1]), _layers(wiring, chain)
            steps.append(ForwardStep(i, layer, bottom, top, relu, chain, loss, followers))
        else:
            steps.append(BackwardStep(i, layer, bottom, top, fused.get(i), (), needed))
    return tuple(steps)


def _layers(wiring: Wiring, indices: Sequence[int]) -> tuple[Layer, ...]:
    return tuple(wiring.layers[i] for i in indices)


def run(steps: Sequence[Step]) -> float:
    """Run the steps of a pass; returns the weighted sum of the losses."""
    loss = 0.0
    for step in steps:
        loss += step.run()
    return loss


def run_with_hooks(
    steps: Sequence[Step], layers: range, before: Sequence[Hook], after: Sequence[Hook]
) -> float:
    """Run the steps of a pass and call the hooks for each of its layers.

    As in Caffe, hooks are also called for layers without a step.
    """
    by_layer = {step.index: step for step in steps}
    loss = 0.0
    for index in layers:
        for hook in before:
            hook(index)
        if index in by_layer:
            loss += by_layer[index].run()
        for hook in after:
            hook(index)
    return loss


def _forward_pairs(wiring: Wiring, layers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of layers and in-place ReLUs after them, which the layers can compute."""
    for i in layers[1:]:
        if wiring.layers[i - 1].can_rectify and _is_relu_between(wiring, i, i - 1, i):
            yield i - 1, i


def _backward_pairs(wiring: Wiring, layers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of layers and in-place ReLUs before them, whose gradients the layers can compute.

    Such a layer reads its top, which no layer after it may overwrite.
    """
    for i in layers:
        if (
            i - 1 in layers
            and wiring.layers[i].can_gate_relu
            and len(wiring.tops[i]) == 1
            and _is_relu_between(wiring, i - 1, i - 1, i)
            and not any(wiring.tops[i][0] in later for later in wiring.tops[i + 1 :])
        ):
            yield i, i - 1


def _is_relu_between(wiring: Wiring, relu: int, lower: int, upper: int) -> bool:
    """Whether `relu` works in place on the tops of `lower`, which are the bottoms of `upper`."""
    return (
        wiring.layers[relu].rectifies
        and wiring.tops[relu] == wiring.bottoms[relu]
        and wiring.bottoms[upper] == wiring.tops[lower]
    )
