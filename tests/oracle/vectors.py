"""Vectors, products and the update of the weights, by their formulas."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def gemm(
    trans_a: bool, trans_b: bool, alpha: float, a: Array, b: Array, beta: float, c: Array
) -> Array:
    left, right = (a.T if trans_a else a), (b.T if trans_b else b)
    result = np.zeros(c.shape)
    for i, j in np.ndindex(*c.shape):
        terms = (left[i, k] * right[k, j] for k in range(left.shape[1]))
        result[i, j] = alpha * math.fsum(terms) + (beta * c[i, j] if beta else 0.0)
    return result


def dot(x: Array, y: Array) -> float:
    return math.fsum(a * b for a, b in zip(x.ravel(), y.ravel(), strict=True))


def asum(x: Array) -> float:
    return math.fsum(abs(a) for a in x.ravel())


def sgd_update(
    w: Array, dw: Array, history: Array, lr: float, momentum: float, decay: float
) -> tuple[Array, Array]:
    """Return the new weights and the new history: the rate is inside the history."""
    moved = np.zeros(w.shape)
    for at in np.ndindex(*w.shape):
        moved[at] = momentum * history[at] + lr * (dw[at] + decay * w[at])
    return w - moved, moved
