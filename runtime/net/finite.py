"""Whether the numbers that a net's outputs are computed of are finite.

A loss of NaN shows in the output itself. An accuracy does not: NaN scores count as right, as in
original Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from runtime.core.blob import Blob
from runtime.net.net import Net


def keep_scores(net: Net) -> None:
    """Let the blobs that `not_finite` reads keep their values to the end of a pass."""
    if net.context.sharing is not None:
        net.context.sharing.keep |= frozenset(_scores(net))


def not_finite(net: Net) -> tuple[str, ...]:
    """The outputs, and inputs of the layers that make them, with NaN or infinity after a pass."""
    found: dict[str, None] = {}
    for name in _scores(net):
        if not _is_finite(net.blobs[name]):
            found[_before_splits(net, name)] = None
    return tuple(found)


def sentence(names: Iterable[str]) -> str:
    """What is wrong, and what to look at."""
    return (
        f"not finite: {', '.join(names)}; expected finite numbers, got NaN or infinity; accuracies "
        "and other scores computed of them mean nothing; check the weights and the mean and scale "
        "of the data"
    )


def _scores(net: Net) -> list[str]:
    outputs = set(net.outputs)
    feeding = [
        name
        for layer in net.layers
        if outputs.intersection(layer.param.top)
        for name in layer.param.bottom
    ]
    return [*feeding, *net.outputs]


def _is_finite(blob: Blob) -> bool:
    # The sum of magnitudes is cheap on every device; it may also be too large itself.
    total = blob.backend.vectors.asum(blob.data.dev())
    return math.isfinite(total) or bool(np.isfinite(blob.data.host()).all())


def _before_splits(net: Net, name: str) -> str:
    """A blob as the prototxt names it, of which this one may be an implicit copy."""
    for layer in reversed(net.layers):
        if layer.inserted_by_net and name in layer.param.top:
            name = str(layer.param.bottom[0])
    return name
