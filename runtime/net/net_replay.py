"""A net's whole passes on a backend that can repeat launches: which layers may, and the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from runtime.backend.recording import Recorder
from runtime.core.context import RunContext
from runtime.net.replay import Replay
from runtime.net.wiring import Wiring


class LayerPasses(Wiring, Protocol):
    """A net that runs layer by layer; the hooks are called with the index of a layer."""

    context: RunContext
    before_forward: list[Callable[[int], None]]
    after_forward: list[Callable[[int], None]]
    before_backward: list[Callable[[int], None]]
    after_backward: list[Callable[[int], None]]

    def forward_layer(self, index: int, after: bool, before: bool) -> bool:
        """See Net.forward_layer."""

    def weighted_loss(self, index: int) -> float:
        """See Net.weighted_loss."""

    def backward_layer(self, index: int, after: bool, before: bool) -> None:
        """See Net.backward_layer."""


class NetReplay:
    """The passes of one net, forward and backward. See Replay.

    What goes around a replay stays outside of it: sources of data, losses, and whatever looks at
    labels. A pass that hooks watch, or over a part of the layers, is not for this.
    """

    def __init__(self, net: LayerPasses, recorder: Recorder) -> None:
        self._net = net
        self._forward = Replay(recorder)
        self._backward = Replay(recorder)
        # For settings with which such a layer computes on the host, the recording is refused.
        self._fit = [layer.only_ops for layer in net.layers]

    def forward(self) -> float:
        """Run all layers and return the weighted sum of their losses."""
        net, replay, loss = self._net, self._forward, 0.0
        last, i = len(net.layers) - 1, 0
        if self._forward.is_stale or self._backward.is_stale:
            # Before the layers ask for new memory: there may be no room for both.
            self._forward.forget()
            self._backward.forget()
        replay.begin(net.context.seed, net.context.pass_number)
        while i <= last:
            done = replay.replayed(i)
            if not done and self._fit[i] and not any(net.layers[i].loss_weights):
                replay.do(i, partial(net.forward_layer, i, i > 0, i < last))
            elif not done and net.forward_layer(i, i > 0, i < last):
                loss += net.weighted_loss(i)
            i += done or 1
        replay.end()
        return loss

    @property
    def may_go_back(self) -> bool:
        """Whether nobody looks at the net, or takes something from it, in the midst of a pass."""
        net = self._net
        return not (
            net.before_forward
            or net.after_forward
            or net.before_backward
            or net.after_backward
            or any(layer.keep_factors is not None for layer in net.layers)
        )

    def backward(self, gating: bool) -> None:
        """Run the gradients of all layers; `gating` as in Net.backward_layer."""
        net, replay, step = self._net, self._backward, 0
        last = len(net.layers) - 1
        replay.begin(gating)
        while step <= last:
            i, done = last - step, replay.replayed(step)
            work = partial(net.backward_layer, i, gating and i < last, gating and i > 0)
            if not done and self._fit[i]:
                replay.do(step, work)
            elif not done:
                work()
            step += done or 1
        replay.end()

    @property
    def layers(self) -> tuple[frozenset[int], frozenset[int]]:
        """The layers that are in a graph, forward and backward."""
        last = len(self._net.layers) - 1
        return self._forward.steps, frozenset(last - step for step in self._backward.steps)


def replay_of(net: LayerPasses) -> NetReplay | None:
    """The replay of a net whose backend has a recorder."""
    recorder = net.backend.recorder
    return None if recorder is None else NetReplay(net, recorder)
