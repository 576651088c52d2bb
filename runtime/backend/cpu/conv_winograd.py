"""Convolution by Winograd's F(4x4, 3x3): 3x3 windows at stride 1, in float32."""

from __future__ import annotations

import numpy as np

from prototxt_gen.geometry import ConvGeometry, Pair
from prototxt_gen.integers import ceil_div
from runtime.backend.base import ConvPasses, ConvPlan, Epilogue, HostArray
from runtime.backend.cpu.conv_pieces import Piece, cut
from runtime.backend.cpu.lanes import Lane, Lanes, Runner
from runtime.backend.cpu.winograd_matrices import PLANES
from runtime.backend.cpu.winograd_transforms import FLOAT, Transforms, planes, tiles_along

# Up to this many weights, the transformed filters fit in the cache of a core, and lanes compute
# pieces alone. Above, lanes divide the planes of a piece, so the filters of a plane are read once.
_LANE_WEIGHTS = 128 * 128
# OpenBLAS does not pack matrices for products of up to 10^6 multiply-adds.
_SMALL_PRODUCT = 1_000_000
_MOST_TILES = 128
_FEWEST_TILES = 32
_MIN_PIECES = 8
_SHARED_BYTES = 32 << 20
# The maximum number of partial sums of weight gradients if pieces are distributed over lanes.
_PARTS = 8
# Planes that a lane multiplies per step if lanes share a piece.
_SHARED_PLANES = 2


def _is_shared(geom: ConvGeometry) -> bool:
    return geom.c * geom.k > _LANE_WEIGHTS


def _pieces(geom: ConvGeometry, n: int, rows: int, across: int) -> list[Piece]:
    """Divide n images of rows x across tiles into pieces."""
    if _is_shared(geom):
        limit = _SHARED_BYTES // (PLANES * FLOAT.itemsize * (geom.c + geom.k))
    else:
        fair = max(_FEWEST_TILES, n * rows * across // _MIN_PIECES)
        limit = min(_MOST_TILES, fair, _SMALL_PRODUCT // (geom.c * geom.k))
    return cut(n, rows, across, limit)


def workspace_bytes(geom: ConvGeometry) -> int:
    """Memory of one piece for transformed data and products in the forward pass. Units: bytes."""
    rows, across = tiles_along(geom.p), tiles_along(geom.q)
    piece = _pieces(geom, geom.n, rows, across)[0]
    return PLANES * piece.images * piece.rows * across * (geom.c + geom.k) * FLOAT.itemsize


class WinogradConvolution(ConvPasses):
    """Tiles of 4x4 outputs: transforms, products plane by plane, and transforms back."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._transforms = Transforms()

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        epilogue: Epilogue,
        y: HostArray,
        weight_version: int | None,
    ) -> None:
        filters = self._filters(plan, weight, weight_version, rotated=False)
        self._correlate(plan.geometry, x, plan.geometry.pad, filters, epilogue, y)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        """A convolution of dy with the filters rotated by 180 degrees."""
        pad = (2 - plan.geometry.pad[0], 2 - plan.geometry.pad[1])
        filters = self._filters(plan, weight, weight_version, rotated=True)
        self._correlate(plan.geometry, dy, pad, filters, Epilogue(), dx)

    def _filters(
        self, plan: ConvPlan, weight: HostArray, version: int | None, rotated: bool
    ) -> HostArray:
        """Transformed filters (36, inputs, outputs).

        They have four times the size of the weights, so they are kept only from the second request
        of a version on: during training, weights change after every pass.
        """
        name = "rotated" if rotated else "filters"
        cached_version, cached = plan.cache.get(name, (None, None))
        if version is not None and version == cached_version and cached is not None:
            filters: HostArray = cached
            return filters
        k, c = weight.shape[:2]
        shape = (PLANES, k, c) if rotated else (PLANES, c, k)
        again = version is not None and version == cached_version
        if again:
            filters = np.empty(shape, FLOAT)
        else:
            filters = self._lanes.first.scratch("wino.filters", shape, FLOAT)
        transform = self._transforms.rotated_filters if rotated else self._transforms.filters
        transform(self._lanes, weight, filters)
        plan.cache[name] = (version, filters if again else None)
        return filters

    def _correlate(
        self,
        geom: ConvGeometry,
        src: HostArray,
        pad: Pair,
        filters: HostArray,
        epilogue: Epilogue,
        dst: HostArray,
    ) -> None:
        inputs, outputs = filters.shape[1:]
        rows, across = tiles_along(dst.shape[2]), tiles_along(dst.shape[3])
        pieces = _pieces(geom, dst.shape[0], rows, across)
        shared = _is_shared(geom)
        most = max(piece.images * piece.rows for piece in pieces) * across
        bias = None if epilogue.bias is None else np.tile(epilogue.bias.reshape(-1), most)

        def task(lane: Lane, start: int, stop: int) -> None:
            piece = pieces[start]
            runner: Runner = self._lanes if shared else lane
            tiles = piece.images * piece.rows * across
            data = planes(lane, "wino.data", tiles, inputs)
            products = planes(lane, "wino.products", tiles, outputs)
            self._transforms.data(runner, src, pad, piece, across, data)
            _multiply(runner, shared, data, filters, products)
            self._transforms.products(runner, products, bias, epilogue.relu, piece, across, dst)

        (self._lanes.in_turn if shared else self._lanes.run)(task, len(pieces))

    def backward_weight(self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray) -> None:
        geom = plan.geometry
        rows, across = tiles_along(geom.p), tiles_along(geom.q)
        pieces = _pieces(geom, geom.n, rows, across)
        shared = _is_shared(geom)
        share = len(pieces) if shared else ceil_div(len(pieces), _PARTS)
        parts = ceil_div(len(pieces), share)
        sums = self._lanes.first.scratch("wino.sums", (parts, PLANES, geom.k, geom.c), FLOAT)

        def task(lane: Lane, start: int, stop: int) -> None:
            runner: Runner = self._lanes if shared else lane
            for index, piece in enumerate(pieces[start * share : stop * share]):
                tiles = piece.images * piece.rows * across
                data = planes(lane, "wino.data", tiles, geom.c)
                top = planes(lane, "wino.products", tiles, geom.k)
                self._transforms.data(runner, x, geom.pad, piece, across, data)
                self._transforms.top(runner, dy, piece, across, top)
                _accumulate(runner, shared, top, data, sums[start], index == 0)

        (self._lanes.in_turn if shared else self._lanes.run)(task, parts)
        self._transforms.fold(self._lanes, sums, dw)


def _multiply(
    runner: Runner, shared: bool, data: HostArray, filters: HostArray, products: HostArray
) -> None:
    """products = data @ filters, plane by plane."""

    def task(lane: Lane, start: int, stop: int) -> None:
        part = slice(start, stop)
        np.matmul(data[part], filters[part], out=products[part])

    runner.run(task, PLANES, _SHARED_PLANES if shared else PLANES)


def _accumulate(
    runner: Runner, shared: bool, top: HostArray, data: HostArray, total: HostArray, first: bool
) -> None:
    """total = top^T @ data, plane by plane; total += top^T @ data if not `first`."""

    def task(lane: Lane, start: int, stop: int) -> None:
        part = slice(start, stop)
        left, right = top[part].swapaxes(1, 2), data[part]
        if first:
            np.matmul(left, right, out=total[part])
            return
        more = lane.scratch("wino.more", (stop - start, *total.shape[1:]), FLOAT)
        np.matmul(left, right, out=more)
        total[part] += more

    runner.run(task, PLANES, _SHARED_PLANES if shared else PLANES)
