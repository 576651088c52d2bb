"""Soft-max, its loss and accuracy, label by label."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
FLT_MIN = float(np.finfo(np.float32).tiny)


def forward(x: Array) -> Array:
    """Shapes: x and the result (outer, channels, inner)."""
    y = np.zeros(x.shape)
    for o in range(x.shape[0]):
        for i in range(x.shape[2]):
            top = max(float(v) for v in x[o, :, i])
            terms = [math.exp(float(v) - top) for v in x[o, :, i]]
            y[o, :, i] = [term / math.fsum(terms) for term in terms]
    return y


def backward(y: Array, dy: Array) -> Array:
    """dx[c] = sum over d of dy[d] * y[d] * ((c == d) - y[c])."""
    dx = np.zeros(y.shape)
    channels = y.shape[1]
    for o in range(y.shape[0]):
        for i in range(y.shape[2]):
            for c in range(channels):
                for d in range(channels):
                    dx[o, c, i] += dy[o, d, i] * y[o, d, i] * (float(c == d) - y[o, c, i])
    return dx


def loss_forward(
    prob: Array, label: Array, ignore: int | None, normalizer: float | None
) -> tuple[float, float]:
    """Return the loss and what it was divided by. Shapes: label (outer, inner)."""
    total, count = 0.0, 0
    for o, i in np.ndindex(*label.shape):
        if ignore is not None and int(label[o, i]) == ignore:
            continue
        total -= math.log(max(prob[o, int(label[o, i]), i], FLT_MIN))
        count += 1
    divisor = float(max(1, count)) if normalizer is None else normalizer
    return total / divisor, divisor


def loss_backward(
    prob: Array, label: Array, ignore: int | None, loss_weight: float, divisor: float
) -> Array:
    dx = np.array(prob, np.float64)
    for o, i in np.ndindex(*label.shape):
        if ignore is not None and int(label[o, i]) == ignore:
            dx[o, :, i] = 0.0
        else:
            dx[o, int(label[o, i]), i] -= 1.0
    return dx * loss_weight / divisor


def accuracy(x: Array, label: Array, ignore: int | None, top_k: int) -> float:
    """Right when fewer than top_k others are at least as good; NaN is never at least as good."""
    right, count = 0, 0
    for o, i in np.ndindex(*label.shape):
        if ignore is not None and int(label[o, i]) == ignore:
            continue
        own = int(label[o, i])
        rivals = [c for c in range(x.shape[1]) if c != own and x[o, c, i] >= x[o, own, i]]
        # NaN is not even as good as itself, so Caffe's count of rivals starts one lower.
        self_seen = x[o, own, i] >= x[o, own, i]
        right += len(rivals) - (0 if self_seen else 1) < top_k
        count += 1
    return right / count if count else 0.0
