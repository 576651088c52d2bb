"""Convolution by Winograd's F(4x4, 3x3): 3x3 windows at stride 1, in float32."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from prototxt_gen.geometry import ConvGeometry, Pair
from runtime.backend.base import ConvPlan, HostArray
from runtime.backend.cpu.conv_pieces import Piece, cut
from runtime.backend.cpu.lanes import Lane, Lanes, Runner
from runtime.backend.cpu.winograd_matrices import PLANES, SPAN, TILE, Matrices

_FLOAT = np.dtype(np.float32)
# Transformed filters up to this many weights stay in a core's cache: then each lane takes whole
# chunks. Above, lanes share the planes of one chunk, so that each plane's filters are read once.
_SHARED_WEIGHTS = 128 * 128
# OpenBLAS multiplies matrices of up to 10^6 multiply-adds without repacking them first.
_SMALL_PRODUCT = 1_000_000
_MOST_TILES = 256
_FEWEST_TILES = 32
_WANTED_CHUNKS = 8
_SHARED_BYTES = 48 << 20
# Tiles times channels that are transformed in one go.
_TRANSFORM = 4096
_PARTS = 8


def is_shared(geom: ConvGeometry) -> bool:
    """Whether lanes share chunks instead of taking whole ones."""
    return geom.c * geom.k > _SHARED_WEIGHTS


def chunks_for(geom: ConvGeometry, n: int, rows: int, across: int) -> list[Piece]:
    """Cut n images of rows x across tiles into chunks."""
    if is_shared(geom):
        limit = _SHARED_BYTES // (PLANES * _FLOAT.itemsize * (geom.c + geom.k))
    else:
        fair = max(_FEWEST_TILES, n * rows * across // _WANTED_CHUNKS)
        limit = min(_MOST_TILES, fair, _SMALL_PRODUCT // (geom.c * geom.k))
    return cut(n, rows, across, limit)


def workspace_bytes(geom: ConvGeometry) -> int:
    """Scratch of one chunk in the forward pass."""
    rows, across = _tiles(geom.p), _tiles(geom.q)
    chunk = chunks_for(geom, geom.n, rows, across)[0]
    return PLANES * chunk.images * chunk.rows * across * (geom.c + geom.k) * _FLOAT.itemsize


class WinogradConvolution:
    """See the section "Convolution" of Backend.

    Arrays between the transforms are (36, tiles, channels): channels run fastest, so that gathering
    overlapping tiles copies long runs whatever the size of the map.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._matrices = Matrices.build()

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        bias: HostArray | None,
        y: HostArray,
        weight_version: int | None,
        relu: bool,
    ) -> None:
        """See Backend.conv_forward."""
        geom = plan.geometry
        filters = self._filters(plan, weight, weight_version, turned=False)
        self._correlate(geom, x, geom.pad, filters, bias, y, relu)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        """See Backend.conv_backward_data."""
        geom = plan.geometry
        filters = self._filters(plan, weight, weight_version, turned=True)
        self._correlate(geom, dy, (2 - geom.pad[0], 2 - geom.pad[1]), filters, None, dx, False)

    def _filters(
        self, plan: ConvPlan, weight: HostArray, version: int | None, turned: bool
    ) -> HostArray:
        """Transformed filters (36, inputs, outputs), kept in the plan for their version."""
        name = "turned" if turned else "filters"
        kept = plan.cache.get(name)
        if kept is not None and version is not None and kept[0] == version:
            filters: HostArray = kept[1]
            return filters
        k, c = weight.shape[:2]
        if turned:
            matrix, flat = self._matrices.turned_filters, weight.reshape(-1, 9)
        else:
            matrix = self._matrices.filters
            flat = self._lanes.first.scratch("wino.weight", (c * k, 9), _FLOAT)
            np.copyto(flat.reshape(c, k, 3, 3), weight.swapaxes(0, 1))
        shape = (PLANES, k, c) if turned else (PLANES, c, k)
        filters = kept[1] if kept is not None else np.empty(shape, _FLOAT)
        out = filters.reshape(PLANES, -1)

        def task(lane: Lane, start: int, stop: int) -> None:
            np.matmul(matrix, flat[start:stop].T, out=out[:, start:stop])

        self._lanes.run(task, k * c, _TRANSFORM)
        plan.cache[name] = (version, filters)
        return filters

    def _correlate(
        self,
        geom: ConvGeometry,
        src: HostArray,
        pad: Pair,
        filters: HostArray,
        bias: HostArray | None,
        dst: HostArray,
        relu: bool,
    ) -> None:
        """Convolve src into dst, chunk by chunk."""
        inputs, outputs = filters.shape[1:]
        rows, across = _tiles(dst.shape[2]), _tiles(dst.shape[3])
        chunks = chunks_for(geom, dst.shape[0], rows, across)
        most = max(chunk.images * chunk.rows for chunk in chunks) * across
        row = None if bias is None else np.tile(bias.reshape(-1), most)

        def compute(lane: Lane, runner: Runner, chunk: Piece) -> None:
            tiles = chunk.images * chunk.rows * across
            data = _planes(lane, "wino.data", tiles, inputs)
            products = _planes(lane, "wino.products", tiles, outputs)
            self._transform_data(runner, src, pad, chunk, across, data)

            def multiply(lane: Lane, start: int, stop: int) -> None:
                part = slice(start, stop)
                np.matmul(data[part], filters[part], out=products[part])

            runner.run(multiply, PLANES, PLANES if runner is lane else 2)
            self._transform_products(runner, products, row, chunk, across, dst, relu)

        self._over(geom, chunks, compute)

    def _over(self, geom: ConvGeometry, chunks: list[Piece], compute) -> None:  # type: ignore
        """Deal chunks to lanes, or share each chunk among them."""
        if is_shared(geom) or len(chunks) == 1:
            for chunk in chunks:
                compute(self._lanes.first, self._lanes, chunk)
            return

        def task(lane: Lane, start: int, stop: int) -> None:
            compute(lane, lane, chunks[start])

        self._lanes.run(task, len(chunks))

    def _transform_data(
        self, runner: Runner, src: HostArray, pad: Pair, chunk: Piece, across: int, data: HostArray
    ) -> None:
        """data = B^T d B of the chunk's overlapping 6x6 tiles."""
        channels = src.shape[1]
        parts = cut(chunk.images, chunk.rows, across * channels, _TRANSFORM)
        matrix = self._matrices.data

        def task(lane: Lane, start: int, stop: int) -> None:
            part = parts[start]
            top = TILE * (chunk.p0 + part.p0) - pad[0]
            size = (TILE * part.rows + 2, TILE * across + 2)
            images = src[chunk.n0 + part.n0 : chunk.n0 + part.n1]
            band = _channels_last(lane, images, (top, -pad[1]), size)
            image, row, col, one = band.strides
            shape = (SPAN, SPAN, part.images, part.rows, across, channels)
            strides = (row, col, image, TILE * row, TILE * col, one)
            tiles = part.images * part.rows * across
            gathered = _planes(lane, "wino.gathered", tiles, channels)
            seen = as_strided(band, shape, strides, writeable=False)
            np.copyto(gathered.reshape(shape), seen)
            first = (part.n0 * chunk.rows + part.p0) * across
            np.matmul(
                matrix, _flat(gathered), out=_flat(data[:, first : first + tiles])
            )

        runner.run(task, len(parts))

    def _transform_products(
        self,
        runner: Runner,
        products: HostArray,
        row: HostArray | None,
        chunk: Piece,
        across: int,
        dst: HostArray,
        relu: bool,
    ) -> None:
        """dst = A^T m A, tile by tile."""
        channels, height, width = dst.shape[1:]
        parts = cut(chunk.images, chunk.rows, across * channels, _TRANSFORM)
        matrix = self._matrices.products

        def task(lane: Lane, start: int, stop: int) -> None:
            part = parts[start]
            tiles = part.images * part.rows * across
            first = (part.n0 * chunk.rows + part.p0) * across
            result = _planes(lane, "wino.gathered", tiles, channels, TILE * TILE)
            np.matmul(matrix, _flat(products[:, first : first + tiles]), out=_flat(result))
            if row is not None:
                flat = _flat(result)
                flat += row[: flat.shape[1]]
            if relu:
                np.maximum(result, 0.0, out=result)
            shape = (TILE, TILE, part.images, part.rows, across, channels)
            band = lane.scratch(
                "wino.band", (part.images, part.rows, TILE, across, TILE, channels), _FLOAT
            )
            np.copyto(band, result.reshape(shape).transpose(2, 3, 0, 4, 1, 5))
            top = TILE * (chunk.p0 + part.p0)
            target = dst[chunk.n0 + part.n0 : chunk.n0 + part.n1, :, top : top + TILE * part.rows]
            whole = band.reshape(part.images, TILE * part.rows, TILE * across, channels)
            np.copyto(target, whole[:, : target.shape[2], :width].transpose(0, 3, 1, 2))

        runner.run(task, len(parts))

    def backward_weight(
        self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray
    ) -> None:
        """See Backend.conv_backward_weight."""
        geom = plan.geometry
        rows, across = _tiles(geom.p), _tiles(geom.q)
        chunks = chunks_for(geom, geom.n, rows, across)
        parts = 1 if is_shared(geom) else min(_PARTS, len(chunks))
        share = -(-len(chunks) // parts)
        sums = self._lanes.first.scratch("wino.sums", (parts, PLANES, geom.k, geom.c), _FLOAT)

        def add(lane: Lane, runner: Runner, chunk: Piece, total: HostArray, first: bool) -> None:
            tiles = chunk.images * chunk.rows * across
            data = _planes(lane, "wino.data", tiles, geom.c)
            top = _planes(lane, "wino.products", tiles, geom.k)
            self._transform_data(runner, x, geom.pad, chunk, across, data)
            self._transform_top(runner, dy, chunk, across, top)

            def multiply(lane: Lane, start: int, stop: int) -> None:
                part = slice(start, stop)
                left, right = top[part].swapaxes(1, 2), data[part]
                if first:
                    np.matmul(left, right, out=total[part])
                    return
                more = lane.scratch("wino.more", (stop - start, geom.k, geom.c), _FLOAT)
                np.matmul(left, right, out=more)
                total[part] += more

            runner.run(multiply, PLANES, PLANES if runner is lane else 2)

        def task(lane: Lane, start: int, stop: int) -> None:
            runner = self._lanes if parts == 1 else lane
            for index, chunk in enumerate(chunks[start * share : stop * share]):
                add(lane, runner, chunk, sums[start], index == 0)

        if parts == 1:
            task(self._lanes.first, 0, 1)
        else:
            parts = -(-len(chunks) // share)
            self._lanes.run(task, parts)
        self._fold(sums[:parts], dw)

    def _transform_top(
        self, runner: Runner, dy: HostArray, chunk: Piece, across: int, top: HostArray
    ) -> None:
        """top = A e A^T of the chunk's 4x4 tiles of dy."""
        channels = dy.shape[1]
        parts = cut(chunk.images, chunk.rows, across * channels, _TRANSFORM)
        matrix = self._matrices.products.T

        def task(lane: Lane, start: int, stop: int) -> None:
            part = parts[start]
            size = (TILE * part.rows, TILE * across)
            images = dy[chunk.n0 + part.n0 : chunk.n0 + part.n1]
            band = _channels_last(lane, images, (TILE * (chunk.p0 + part.p0), 0), size)
            tiles = part.images * part.rows * across
            gathered = _planes(lane, "wino.gathered", tiles, channels, TILE * TILE)
            shape = (TILE, TILE, part.images, part.rows, across, channels)
            seen = band.reshape(part.images, part.rows, TILE, across, TILE, channels)
            np.copyto(gathered.reshape(shape), seen.transpose(2, 4, 0, 1, 3, 5))
            first = (part.n0 * chunk.rows + part.p0) * across
            np.matmul(matrix, _flat(gathered), out=_flat(top[:, first : first + tiles]))

        runner.run(task, len(parts))

    def _fold(self, sums: HostArray, dw: HostArray) -> None:
        """dw += G^T u G of the sum of the partial sums, added in order."""
        flat = sums.reshape(len(sums), PLANES, -1)
        weight = dw.reshape(-1, 9)
        matrix = self._matrices.filters.T

        def task(lane: Lane, start: int, stop: int) -> None:
            total = flat[0, :, start:stop]
            for more in flat[1:]:
                total += more[:, start:stop]
            folded = lane.scratch("wino.folded", (9, stop - start), _FLOAT)
            np.matmul(matrix, total, out=folded)
            weight[start:stop] += folded.T

        self._lanes.run(task, flat.shape[2], _TRANSFORM)


def _tiles(size: int) -> int:
    return -(-size // TILE)


def _planes(
    lane: Lane, name: str, tiles: int, channels: int, count: int = PLANES
) -> HostArray:
    """(count, tiles, channels), planes 64 bytes off a multiple of 4 KiB: no two share cache sets."""
    size = tiles * channels
    stride = -(-size // 1024) * 1024 + 16
    whole = lane.scratch(name, (count, stride), _FLOAT)
    return whole[:, :size].reshape(count, tiles, channels)


def _flat(planes: HostArray) -> HostArray:
    return planes.reshape(planes.shape[0], -1)


def _channels_last(lane: Lane, src: HostArray, start: Pair, size: Pair) -> HostArray:
    """A region of (N,C,H,W) as (N,H,W,C); what lies outside is zero."""
    n, c, h, w = src.shape
    (top, left), (height, width) = start, size
    band = lane.scratch("wino.band", (n, height, width, c), _FLOAT)
    y0, y1 = max(0, top), min(h, top + height)
    x0, x1 = max(0, left), min(w, left + width)
    if y0 > top or x0 > left or y1 < top + height or x1 < left + width:
        band[...] = 0.0
    if y0 < y1 and x0 < x1:
        inside = src[:, :, y0:y1, x0:x1].transpose(0, 2, 3, 1)
        np.copyto(band[:, y0 - top : y1 - top, x0 - left : x1 - left], inside)
    return band
