"""Check that the outputs of a net, and the scores that they are computed from, are finite.

The scores are checked because an accuracy does not show NaN: it counts NaN scores as correct, as in
original Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from runtime.core.blob import Blob
from runtime.net.net import Net


def keep_scores(net: Net) -> None:
    """Exclude the blobs that `not_finite` reads from shared memory. Call before the first pass."""
    if net.context.sharing is not None:
        net.context.sharing.keep |= frozenset(_scores(net))


def not_finite(net: Net) -> tuple[str, ...]:
    """The blobs with NaN or infinity among the outputs and the bottoms of their layers."""
    names: dict[str, None] = {}
    for name in _scores(net):
        if not _is_finite(net.blobs[name]):
            names[_before_splits(net, name)] = None
    return tuple(names)


def sentence(names: Iterable[str]) -> str:
    """The error message for blobs that are not finite."""
    return (
        f"not finite: {', '.join(names)}; expected finite numbers, got NaN or infinity; accuracies "
        "and other scores computed from them are meaningless; check the weights and the mean and "
        "scale of the data"
    )


def _scores(net: Net) -> list[str]:
    outputs = set(net.outputs)
    bottoms = [
        name
        for layer in net.layers
        if outputs.intersection(layer.param.top)
        for name in layer.param.bottom
    ]
    return [*bottoms, *net.outputs]


def _is_finite(blob: Blob) -> bool:
    # The sum of magnitudes is fast on every device, but can overflow.
    total = blob.backend.vectors.asum(blob.data.dev())
    return math.isfinite(total) or bool(np.isfinite(blob.data.host()).all())


def _before_splits(net: Net, name: str) -> str:
    """The blob's name in the prototxt, if this one is a copy made by an implicit split."""
    for layer in reversed(net.layers):
        if layer.inserted_by_net and name in layer.param.top:
            name = str(layer.param.bottom[0])
    return name
