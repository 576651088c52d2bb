"""A net's whole passes on a backend that can repeat launches: which layers may, and the way."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from runtime.backend.recording import Recorder, recorder_of
from runtime.net.replay import Replay

if TYPE_CHECKING:
    from runtime.net.net import Net

# Layers whose passes do nothing but ask for ops; with settings for which they compute on the host
# the recording shows it. Of any other layer nobody knows what its code does besides.
_ONLY_OPS = frozenset(
    {
        "Concat",
        "Convolution",
        "Deconvolution",
        "Dropout",
        "Flatten",
        "InnerProduct",
        "LRN",
        "Pooling",
        "ReLU",
        "Reshape",
        "Silence",
        "Slice",
        "Softmax",
        "SoftmaxWithLoss",
        "Split",
    }
)


class NetReplay:
    """The passes of one net, forward and backward. See Replay.

    What goes around a replay stays outside of it: sources of data, losses, and whatever looks at
    labels. A pass that hooks watch, or over a part of the layers, is not for this.
    """

    def __init__(self, net: Net, recorder: Recorder) -> None:
        self._net = net
        self._forward = Replay(recorder)
        self._backward = Replay(recorder)
        self._fit = [
            layer.type in _ONLY_OPS and type(layer).__module__.startswith("runtime.layers.")
            for layer in net.layers
        ]

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
            or any(getattr(layer, "keep_factors", None) is not None for layer in net.layers)
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


def replay_of(net: Net) -> NetReplay | None:
    """The replay of a net whose backend has a recorder."""
    recorder = recorder_of(net.backend)
    return None if recorder is None else NetReplay(net, recorder)
