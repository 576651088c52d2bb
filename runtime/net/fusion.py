"""Which ReLUs a net's other layers can do in passing."""

from __future__ import annotations

from runtime.net.wiring import Wiring


def find_rectified(net: Wiring) -> frozenset[int]:
    """The ReLUs in place whose forward pass the layer before them can do."""
    return frozenset(
        i
        for i in range(1, len(net.layers))
        if _rectifies_in_place(net, i)
        and net.layers[i - 1].can_rectify
        and net.bottoms[i] == net.tops[i - 1]
    )


def find_gating(net: Wiring) -> frozenset[int]:
    """The layers that can do the backward pass of the ReLU in place before them.

    Their tops are read again, so no layer behind them may overwrite these.
    """
    return frozenset(
        i
        for i in range(1, len(net.layers))
        if net.layers[i].can_gate_relu
        and len(net.tops[i]) == 1
        and _rectifies_in_place(net, i - 1)
        and net.bottoms[i] == net.tops[i - 1]
        and not any(net.tops[i][0] in later for later in net.tops[i + 1 :])
    )


def _rectifies_in_place(net: Wiring, index: int) -> bool:
    return net.layers[index].rectifies and net.tops[index] == net.bottoms[index]
