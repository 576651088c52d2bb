"""Which layers of a net can be folded into the layers before them; see runtime/core/folding.py."""

from __future__ import annotations

from collections.abc import Iterator

from prototxt_gen import proto
from runtime.net.wiring import Wiring


def chains(wiring: Wiring, first: int, last: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The layers of a pass, and for each the layers after it that can be folded into it."""
    stop = first
    for i in range(first, last + 1):
        if i < stop or not _is_head(wiring, i):
            continue
        stop = i + 1
        while stop <= last and _is_follower(wiring, i, stop):
            stop += 1
        if stop > i + 1:
            yield i, tuple(range(i + 1, stop))


def _is_head(wiring: Wiring, index: int) -> bool:
    """Whether layers after this one can be folded into it."""
    layer = wiring.layers[index]
    return (
        layer.can_fold
        and layer.backend.folds
        and layer.phase == proto.TEST
        and len(wiring.tops[index]) == 1
        and not any(layer.loss_weights)
    )


def _is_follower(wiring: Wiring, head: int, index: int) -> bool:
    """Whether a layer maps the channels of the head's top in place, without a backward pass."""
    layer, top = wiring.layers[index], wiring.tops[head]
    backward = wiring.layer_need_backward[index] and not layer.context.never_backward(layer.phase)
    return (
        layer.maps_channels
        and wiring.bottoms[index] == wiring.tops[index] == top
        and not any(layer.loss_weights)
        and not backward
    )
