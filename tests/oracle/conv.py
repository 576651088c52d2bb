"""Convolution by its definition: every product of an input, a weight and an output, one by one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from prototxt_gen.geometry import ConvGeometry

Array = npt.NDArray[np.float64]
_Tap = tuple[int, int, int, int, slice, int, int, int, int]


def _taps(geom: ConvGeometry) -> Iterator[_Tap]:
    """Every (n, k, p, q, channels, h, w, r, s) with the input place inside the image."""
    per_group_in, per_group_out = geom.c // geom.group, geom.k // geom.group
    for n, k, p, q in np.ndindex(geom.n, geom.k, geom.p, geom.q):
        group = k // per_group_out
        channels = slice(group * per_group_in, (group + 1) * per_group_in)
        for r, s in np.ndindex(*geom.kernel):
            h = p * geom.stride[0] - geom.pad[0] + r * geom.dilation[0]
            w = q * geom.stride[1] - geom.pad[1] + s * geom.dilation[1]
            if 0 <= h < geom.h and 0 <= w < geom.w:
                yield n, k, p, q, channels, h, w, r, s


def forward(geom: ConvGeometry, x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = np.zeros(geom.out_shape)
    for n, k, p, q, channels, h, w, r, s in _taps(geom):
        y[n, k, p, q] += np.dot(x[n, channels, h, w], weight[k, :, r, s])
    if bias is not None:
        for k in range(geom.k):
            y[:, k] += bias[k]
    return y


def backward_data(geom: ConvGeometry, dy: Array, weight: Array) -> Array:
    dx = np.zeros(geom.in_shape)
    for n, k, p, q, channels, h, w, r, s in _taps(geom):
        dx[n, channels, h, w] += dy[n, k, p, q] * weight[k, :, r, s]
    return dx


def backward_weight(geom: ConvGeometry, x: Array, dy: Array) -> Array:
    dw = np.zeros(geom.weight_shape)
    for n, k, p, q, channels, h, w, r, s in _taps(geom):
        dw[k, :, r, s] += dy[n, k, p, q] * x[n, channels, h, w]
    return dw
