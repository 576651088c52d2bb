"""Winograd's transforms of data, filters and products, a few tiles at a time.

Transformed arrays are (36, tiles, channels), with channels as the innermost axis, so that gathering
overlapping tiles copies long runs for any map size. The tiles of a piece are numbered by image, row
and column.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from prototxt_gen.geometry import Pair
from prototxt_gen.integers import ceil_div, round_up
from runtime.backend.base import HostArray
from runtime.backend.cpu.conv_pieces import Piece, cut, padded_band
from runtime.backend.cpu.lanes import Lane, Runner
from runtime.backend.cpu.winograd_matrices import PLANES, SPAN, TILE, Matrices

FLOAT = np.dtype(np.float32)
# Tiles times channels, or filters, that are transformed per step; they fit in the cache.
_GRAIN = 4096
# Pixels whose channels are read one by one: a cache line each, half of the L1 cache.
_PIXELS = 256
# Padding, so that the pixel size of a band is not a multiple of 256 bytes.
_GAP = 4


def tiles_along(size: int) -> int:
    """The number of tiles along a dimension of `size` outputs."""
    return ceil_div(size, TILE)


def planes(lane: Lane, name: str, tiles: int, channels: int, count: int = PLANES) -> HostArray:
    """Scratch memory whose planes are a multiple of 4 KiB plus 64 bytes apart.

    The same position of all planes is used together; at distances of multiples of 4 KiB they would
    map to the same cache lines.

    Shapes: (count, tiles, channels).
    """
    size = tiles * channels
    stride = round_up(size, 1024) + 16
    return lane.scratch(name, (count, stride), FLOAT)[:, :size].reshape(count, tiles, channels)


class Transforms:
    """The transforms of a piece: images n0..n1-1, rows of tiles p0..p1-1."""

    def __init__(self) -> None:
        self._matrices = Matrices.build()

    def filters(self, runner: Runner, weight: HostArray, out: HostArray) -> None:
        """out = G g G^T. Shapes: weight (K,C,3,3), out (36,C,K)."""
        k, c = weight.shape[:2]

        def task(lane: Lane, start: int, stop: int) -> None:
            inputs = lane.scratch("wino.weight", (stop - start, k, 3, 3), FLOAT)
            np.copyto(inputs, weight[:, start:stop].swapaxes(0, 1))
            np.matmul(
                self._matrices.filters, inputs.reshape(-1, 9).T, out=_flat(out[:, start:stop])
            )

        runner.run(task, c, max(1, _GRAIN // k))

    def rotated_filters(self, runner: Runner, weight: HostArray, out: HostArray) -> None:
        """out = G g G^T of g rotated by 180 degrees. Shapes: weight (K,C,3,3), out (36,K,C)."""
        k, c = weight.shape[:2]

        def task(lane: Lane, start: int, stop: int) -> None:
            outputs = weight[start:stop].reshape(-1, 9).T
            np.matmul(self._matrices.rotated_filters, outputs, out=_flat(out[:, start:stop]))

        runner.run(task, k, max(1, _GRAIN // c))

    def data(
        self, runner: Runner, src: HostArray, pad: Pair, piece: Piece, across: int, out: HostArray
    ) -> None:
        """out = B^T d B of overlapping 6x6 tiles. Shapes: src (N,C,H,W), out (36,tiles,C)."""
        channels = src.shape[1]
        parts = cut(piece.images, piece.rows, across * channels, _GRAIN)

        def task(lane: Lane, start: int, stop: int) -> None:
            part = parts[start]
            images = src[piece.n0 + part.n0 : piece.n0 + part.n1]
            top = TILE * (piece.p0 + part.p0) - pad[0]
            size = (TILE * part.rows + 2, TILE * across + 2)
            band = _channels_last(lane, images, (top, -pad[1]), size)
            image, row, col, one = band.strides
            shape = (SPAN, SPAN, part.images, part.rows, across, channels)
            strides = (row, col, image, TILE * row, TILE * col, one)
            tiles = _tiles_of(part, piece, across)
            gathered = planes(lane, "wino.tiles", tiles.stop - tiles.start, channels)
            windows = as_strided(band, shape, strides, writeable=False)
            np.copyto(gathered.reshape(shape), windows)
            np.matmul(self._matrices.data, _flat(gathered), out=_flat(out[:, tiles]))

        runner.run(task, len(parts))

    def top(self, runner: Runner, dy: HostArray, piece: Piece, across: int, out: HostArray) -> None:
        """out = A e A^T of 4x4 tiles of dy. Shapes: dy (N,K,P,Q), out (36,tiles,K)."""
        channels = dy.shape[1]
        parts = cut(piece.images, piece.rows, across * channels, _GRAIN)

        def task(lane: Lane, start: int, stop: int) -> None:
            part = parts[start]
            images = dy[piece.n0 + part.n0 : piece.n0 + part.n1]
            size = (TILE * part.rows, TILE * across)
            band = _channels_last(lane, images, (TILE * (piece.p0 + part.p0), 0), size)
            tiles = _tiles_of(part, piece, across)
            gathered = planes(lane, "wino.tiles", tiles.stop - tiles.start, channels, TILE * TILE)
            rows = band.reshape(part.images, part.rows, TILE, across, TILE, channels)
            shape = (TILE, TILE, part.images, part.rows, across, channels)
            np.copyto(gathered.reshape(shape), rows.transpose(2, 4, 0, 1, 3, 5))
            np.matmul(self._matrices.products.T, _flat(gathered), out=_flat(out[:, tiles]))

        runner.run(task, len(parts))

    def products(
        self,
        runner: Runner,
        products: HostArray,
        bias_row: HostArray | None,
        relu: bool,
        piece: Piece,
        across: int,
        dst: HostArray,
    ) -> None:
        """dst = A^T m A + bias.

        Shapes: products (36,tiles,K), dst (N,K,P,Q), bias_row the bias repeated for each tile.
        """
        channels, width = dst.shape[1], dst.shape[3]
        parts = cut(piece.images, piece.rows, across * channels, _GRAIN)

        def task(lane: Lane, start: int, stop: int) -> None:
            part = parts[start]
            tiles = _tiles_of(part, piece, across)
            result = planes(lane, "wino.tiles", tiles.stop - tiles.start, channels, TILE * TILE)
            flat = _flat(result)
            np.matmul(self._matrices.products, _flat(products[:, tiles]), out=flat)
            if bias_row is not None:
                flat += bias_row[: flat.shape[1]]
            if relu:
                np.maximum(flat, lane.zeros(flat.shape[1], FLOAT), out=flat)
            shape = (part.images, part.rows, TILE, across, TILE, channels + _GAP)
            band = lane.scratch("wino.band", shape, FLOAT)[..., :channels]
            placed = result.reshape(TILE, TILE, part.images, part.rows, across, channels)
            np.copyto(band, placed.transpose(2, 3, 0, 4, 1, 5))
            top = TILE * (piece.p0 + part.p0)
            target = dst[piece.n0 + part.n0 : piece.n0 + part.n1, :, top : top + TILE * part.rows]
            complete = band.reshape(part.images, TILE * part.rows, TILE * across, channels)
            _channels_first(complete[:, : target.shape[2], :width], target)

        runner.run(task, len(parts))

    def fold(self, runner: Runner, sums: HostArray, dw: HostArray) -> None:
        """dw += G^T u G of partial sums, added in order. Shapes: sums (parts,36,K,C)."""
        flat, weight = sums.reshape(len(sums), PLANES, -1), dw.reshape(-1, 9)

        def task(lane: Lane, start: int, stop: int) -> None:
            total = flat[0, :, start:stop]
            for more in flat[1:]:
                total += more[:, start:stop]
            folded = lane.scratch("wino.folded", (9, stop - start), FLOAT)
            np.matmul(self._matrices.filters.T, total, out=folded)
            weight[start:stop] += folded.T

        runner.run(task, flat.shape[2], _GRAIN)


def _flat(array: HostArray) -> HostArray:
    return array.reshape(array.shape[0], -1)


def _tiles_of(part: Piece, piece: Piece, across: int) -> slice:
    """The numbers of the tiles of a part of a piece."""
    first = (part.n0 * piece.rows + part.p0) * across
    return slice(first, first + part.images * part.rows * across)


def _channels_last(lane: Lane, src: HostArray, start: Pair, size: Pair) -> HostArray:
    """A region of (N,C,H,W) as (N,H,W,C), zero outside.

    The region is copied first, because the planes of a large map are often a multiple of 4 KiB
    apart, and reading one element of each in turn would miss the cache every time.
    """
    compact = padded_band(lane, src, start, size)
    n, c, height, width = compact.shape
    band = lane.scratch("wino.band", (n, height, width, c), FLOAT)
    np.copyto(band, compact.transpose(0, 2, 3, 1))
    return band


def _channels_first(src: HostArray, dst: HostArray) -> None:
    """dst (N,K,P,Q) = src (N,P,Q,K), a few rows at a time so that they fit in the cache."""
    rows, width = dst.shape[2:]
    step = max(1, _PIXELS // width)
    for row in range(0, rows, step):
        part = slice(row, row + step)
        np.copyto(dst[:, :, part], src[:, part].transpose(0, 3, 1, 2))
