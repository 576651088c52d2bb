"""Which ReLUs a net's other layers can do in passing."""

from __future__ import annotations

from prototxt_gen import proto
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
    """The max poolings that can do the backward pass of the ReLU in place before them.

    A maximum of rectified numbers is above zero where the number it was taken from is. So the
    gradient is gated while it is still small; nobody may have written over the maxima since.
    """
    maximum = proto.PoolingParameter.MAX
    return frozenset(
        i
        for i in range(1, len(net.layers))
        if net.layers[i].type == "Pooling"
        and net.layers[i].param.pooling_param.pool == maximum
        and len(net.tops[i]) == 1
        and _rectifies_in_place(net, i - 1)
        and net.bottoms[i] == net.tops[i - 1]
        and not any(net.tops[i][0] in later for later in net.tops[i + 1 :])
    )


def _rectifies_in_place(net: Wiring, index: int) -> bool:
    layer = net.layers[index]
    return (
        layer.type == "ReLU"
        and not layer.param.relu_param.negative_slope
        and net.tops[index] == net.bottoms[index]
    )
