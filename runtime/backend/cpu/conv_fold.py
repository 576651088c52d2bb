"""Gradient of a convolution's input at any stride, by col2im."""

from __future__ import annotations

import numpy as np

from prototxt_gen.geometry import ConvGeometry
from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray
from runtime.backend.cpu.lanes import Lane, Lanes

_COLUMNS = 1 << 18


def scatter(
    lanes: Lanes, geom: ConvGeometry, dy: HostArray, weight: HostArray, dx: HostArray
) -> None:
    """dx = col2im(W^T dy), in pieces of some images and some channels. Caffe: col2im.

    Shapes: dy (N,K,P,Q), weight (K,C/group,R,S), dx (N,C,H,W).
    """
    g, (r, s) = geom.group, geom.kernel
    per_group, plane = geom.c // g, geom.p * geom.q
    block = max(1, min(per_group, _COLUMNS // (r * s * plane)))
    images = max(1, min(geom.n, _COLUMNS // (r * s * plane * block)))
    blocks = ceil_div(per_group, block)
    matrix = weight.reshape(g, geom.k // g, per_group, r * s)

    def task(lane: Lane, start: int, stop: int) -> None:
        batch, part = divmod(start, g * blocks)
        group, index = divmod(part, blocks)
        low, high = index * block, min(per_group, (index + 1) * block)
        image = slice(batch * images, (batch + 1) * images)
        top = dy[image].reshape(-1, g, geom.k // g, plane)[:, group]
        filters = matrix[group, :, low:high].reshape(geom.k // g, -1)
        columns = lane.scratch("conv.columns", (len(top), filters.shape[1], plane), dy.dtype)
        np.matmul(filters.T, top, out=columns)
        patches = columns.reshape(len(top), high - low, r, s, geom.p, geom.q)
        _fold(lane, geom, patches, dx[image, group * per_group + low : group * per_group + high])

    lanes.run(task, ceil_div(geom.n, images) * g * blocks)


def _fold(lane: Lane, geom: ConvGeometry, columns: HostArray, dx: HostArray) -> None:
    """Add columns (n,C,R,S,P,Q) to the elements of dx (n,C,H,W) that they belong to."""
    (r, s), (ph, pw), (sh, sw), (dh, dw) = geom.kernel, geom.pad, geom.stride, geom.dilation
    n, c = dx.shape[:2]
    height = max(geom.h + 2 * ph, (geom.p - 1) * sh + dh * (r - 1) + 1)
    width = max(geom.w + 2 * pw, (geom.q - 1) * sw + dw * (s - 1) + 1)
    band = lane.scratch("conv.band", (n, c, height, width), dx.dtype)
    band[...] = 0.0
    for i in range(r):
        for j in range(s):
            rows = slice(i * dh, i * dh + (geom.p - 1) * sh + 1, sh)
            cols = slice(j * dw, j * dw + (geom.q - 1) * sw + 1, sw)
            band[:, :, rows, cols] += columns[:, :, i, j]
    np.copyto(dx, band[:, :, ph : ph + geom.h, pw : pw + geom.w])
