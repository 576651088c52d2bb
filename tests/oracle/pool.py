"""Pooling by Caffe's definition, window by window."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from prototxt_gen.geometry import PoolGeometry

Array = npt.NDArray[np.float64]
FLT_MAX = float(np.finfo(np.float32).max)


def _windows(geom: PoolGeometry) -> Iterator[tuple[int, int, int, int, range, range, int]]:
    """Every (n, c, p, q, rows, cols, divisor): the window inside the image, its clipped area."""
    for n, c, p, q in np.ndindex(*geom.out_shape):
        top = p * geom.stride[0] - geom.pad[0]
        left = q * geom.stride[1] - geom.pad[1]
        bottom = min(top + geom.kernel[0], geom.h + geom.pad[0])
        right = min(left + geom.kernel[1], geom.w + geom.pad[1])
        divisor = (bottom - top) * (right - left)
        rows, cols = (
            range(max(top, 0), min(bottom, geom.h)),
            range(max(left, 0), min(right, geom.w)),
        )
        yield n, c, p, q, rows, cols, divisor


def max_forward(geom: PoolGeometry, x: Array) -> tuple[Array, npt.NDArray[np.int32]]:
    y = np.full(geom.out_shape, -FLT_MAX)
    mask = np.full(geom.out_shape, -1, np.int32)
    for n, c, p, q, rows, cols, _ in _windows(geom):
        for h in rows:
            for w in cols:
                if x[n, c, h, w] > y[n, c, p, q]:
                    y[n, c, p, q] = x[n, c, h, w]
                    mask[n, c, p, q] = h * geom.w + w
    return y, mask


def max_backward(geom: PoolGeometry, dy: Array, mask: npt.NDArray[np.int32]) -> Array:
    dx = np.zeros(geom.in_shape)
    for n, c, p, q in np.ndindex(*geom.out_shape):
        at = int(mask[n, c, p, q])
        if at >= 0:
            dx[n, c, at // geom.w, at % geom.w] += dy[n, c, p, q]
    return dx


def ave_forward(geom: PoolGeometry, x: Array) -> Array:
    y = np.zeros(geom.out_shape)
    for n, c, p, q, rows, cols, divisor in _windows(geom):
        for h in rows:
            for w in cols:
                y[n, c, p, q] += x[n, c, h, w] / divisor
    return y


def ave_backward(geom: PoolGeometry, dy: Array) -> Array:
    dx = np.zeros(geom.in_shape)
    for n, c, p, q, rows, cols, divisor in _windows(geom):
        for h in rows:
            for w in cols:
                dx[n, c, h, w] += dy[n, c, p, q] / divisor
    return dx
