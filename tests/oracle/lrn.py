"""Local response normalisation across channels, by its formula and its derivative."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prototxt_gen.geometry import LRNGeometry

Array = npt.NDArray[np.float64]


def _window(geom: LRNGeometry, c: int) -> range:
    """Channels whose squares go into the scale of channel c."""
    low = c - (geom.size - 1) // 2
    return range(max(0, low), min(geom.c, low + geom.size))


def forward(geom: LRNGeometry, x: Array) -> tuple[Array, Array]:
    """Return scale and y."""
    scale = np.full(x.shape, float(geom.k))
    for c in range(geom.c):
        for other in _window(geom, c):
            scale[:, c] += geom.alpha / geom.size * x[:, other] ** 2
    return scale, x * scale**-geom.beta


def backward(geom: LRNGeometry, x: Array, dy: Array) -> Array:
    """Sum over c of dy[c] * dy[c]/dx[other], with scale derived separately."""
    scale, _ = forward(geom, x)
    dx = np.zeros(x.shape)
    for c in range(geom.c):
        dx[:, c] += dy[:, c] * scale[:, c] ** -geom.beta
        for other in _window(geom, c):
            slope = 2.0 * geom.alpha / geom.size * x[:, other]
            dx[:, other] += (
                dy[:, c] * x[:, c] * -geom.beta * scale[:, c] ** (-geom.beta - 1) * slope
            )
    return dx
