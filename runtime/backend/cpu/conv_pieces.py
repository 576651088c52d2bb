"""The pieces of a convolution, and gathering the input of a piece (im2col)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from prototxt_gen.geometry import ConvGeometry, Pair
from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray
from runtime.backend.cpu.lanes import Lane


@dataclass(frozen=True)
class Piece:
    """Images n0..n1-1, output rows p0..p1-1."""

    n0: int
    n1: int
    p0: int
    p1: int

    @property
    def images(self) -> int:
        return self.n1 - self.n0

    @property
    def rows(self) -> int:
        return self.p1 - self.p0

    def of(self, array: HostArray) -> HostArray:
        """The part of an array that the piece covers.

        Shapes: array (N,K,P,Q), result (images,K,rows,Q).
        """
        return array[self.n0 : self.n1, :, self.p0 : self.p1]


@dataclass(frozen=True)
class Window:
    """The sliding window of a forward pass over x, or of a backward pass over dy."""

    kernel: Pair
    pad: Pair
    stride: Pair
    dilation: Pair

    @classmethod
    def forward(cls, geom: ConvGeometry) -> Window:
        return cls(geom.kernel, geom.pad, geom.stride, geom.dilation)

    @classmethod
    def backward(cls, geom: ConvGeometry) -> Window:
        """The window over dy that gives dx at stride 1; a negative pad crops."""
        pad = (
            geom.dilation[0] * (geom.kernel[0] - 1) - geom.pad[0],
            geom.dilation[1] * (geom.kernel[1] - 1) - geom.pad[1],
        )
        return cls(geom.kernel, pad, (1, 1), geom.dilation)


def cut(n: int, rows: int, row_units: int, limit: int) -> list[Piece]:
    """Divide n images of `rows` output rows into pieces of at most `limit` units, or of one row.

    A piece has several images, or rows of one image; the numbers of rows are as equal as possible.
    """
    per_image = rows * row_units
    if per_image <= limit:
        size = max(1, limit // max(1, per_image))
        return [Piece(first, min(first + size, n), 0, rows) for first in range(0, n, size)]
    most = max(1, limit // row_units)
    size = ceil_div(rows, ceil_div(rows, most))
    return [
        Piece(image, image + 1, first, min(first + size, rows))
        for image in range(n)
        for first in range(0, rows, size)
    ]


def gather(
    lane: Lane, src: HostArray, window: Window, piece: Piece, q: int, folded: bool
) -> HostArray:
    """The column matrices of a piece of src (im2col).

    Shapes: src (N,C,H,W); result (n,C,R,S,P,Q), or if folded (C,R,S,n,P,Q).
    """
    (r, s), (dh, dw), (sh, sw) = window.kernel, window.dilation, window.stride
    height = (piece.rows - 1) * sh + dh * (r - 1) + 1
    width = (q - 1) * sw + dw * (s - 1) + 1
    top = piece.p0 * sh - window.pad[0]
    band = padded_band(lane, src[piece.n0 : piece.n1], (top, -window.pad[1]), (height, width))
    image, channel, row, col = band.strides
    shape = (piece.images, src.shape[1], r, s, piece.rows, q)
    strides = (image, channel, dh * row, dw * col, sh * row, sw * col)
    windows = as_strided(band, shape, strides, writeable=False)
    if (r, s) == (1, 1) and not folded and strides[4] == q * strides[5] == q * src.itemsize:
        return windows
    if folded:
        windows = windows.transpose(1, 2, 3, 0, 4, 5)
    columns = lane.scratch("conv.columns", windows.shape, src.dtype)
    np.copyto(columns, windows)
    return columns


def padded_band(lane: Lane, src: HostArray, start: Pair, size: Pair) -> HostArray:
    """A region of images, zero outside of them. Shapes: src (N,C,H,W), result (N,C,*size)."""
    n, c, h, w = src.shape
    (top, left), (height, width) = start, size
    if top >= 0 and left >= 0 and top + height <= h and left + width <= w:
        return src[:, :, top : top + height, left : left + width]
    band = lane.scratch("conv.band", (n, c, height, width), src.dtype)
    y0, y1 = max(0, top), min(h, top + height)
    x0, x1 = max(0, left), min(w, left + width)
    band[...] = 0.0
    if y0 < y1 and x0 < x1:
        band[:, :, y0 - top : y1 - top, x0 - left : x1 - left] = src[:, :, y0:y1, x0:x1]
    return band
