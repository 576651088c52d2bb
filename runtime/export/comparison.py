"""Random input for a net, and how far a result is from the net's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.net import Net

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""Largest difference over largest value. Winograd's transforms alone differ by 1e-6 a layer."""


def random_input(net: Net, name: str) -> Array:
    """Numbers for an input blob: whole ones where a layer reads indices."""
    rng = np.random.default_rng(0)
    shape = net.blobs[name].shape
    limits = [
        layer.index_limit
        for layer in net.layers
        if layer.index_limit is not None and name in layer.param.bottom
    ]
    if limits:
        return rng.integers(0, min(limits), shape).astype(np.float32)
    return rng.standard_normal(shape).astype(np.float32)


def relative_difference(got: Array, want: Array) -> float:
    """The largest difference over the largest value; inf if shapes or infinities differ."""
    if got.shape != want.shape or not np.array_equal(np.isfinite(got), np.isfinite(want)):
        return float("inf")
    finite = np.isfinite(want)
    scale = max(float(np.abs(want[finite]).max(initial=0.0)), 1e-30)
    return float(np.abs(got[finite] - want[finite]).max(initial=0.0)) / scale
