"""Convolution by im2col and matrix products, for any geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prototxt_gen.geometry import ConvGeometry
from prototxt_gen.integers import ceil_div
from runtime.backend.base import ConvPasses, ConvPlan, Epilogue, HostArray
from runtime.backend.cpu.conv_fold import scatter
from runtime.backend.cpu.conv_pieces import Piece, Window, cut, gather
from runtime.backend.cpu.lanes import Lane, Lanes, Runner

# Elements of the column matrices of one piece: about the L2 cache of a core in float32.
_COLUMNS = 1 << 18
# Maps smaller than this are folded: all images of a piece form one matrix, because reading the
# weights dominates the time of a product with few columns.
_NARROW = 256
_FOLDED_COLUMNS = 512
# OpenBLAS does not pack matrices for products of up to 10^6 multiply-adds, which is faster if one
# dimension is small.
_SMALL_PRODUCT = 1_000_000
_SMALL_COLUMNS = 64
# With fewer pieces than this, the lanes divide the products of each piece.
_FEW = 4
# The maximum number and size in bytes of partial sums of weight gradients.
_PARTS = 8
_PARTS_BYTES = 32 << 20
# The maximum number of elements of temporary products in a weight gradient.
_PRODUCTS = 1 << 22


@dataclass(frozen=True)
class _Division:
    """The division of one pass into pieces."""

    pieces: list[Piece]
    folded: bool
    depth: int
    outputs: int
    q: int

    @classmethod
    def of(cls, n: int, rows: int, q: int, depth: int, outputs: int) -> _Division:
        """Divide n images of rows x q outputs; `depth` and `outputs` are totals over all groups."""
        folded = n > 1 and rows * q < _NARROW
        limit = max(_COLUMNS // depth, _FOLDED_COLUMNS)
        return cls(cut(n, rows, q, limit), folded, depth, outputs, q)

    def split(self, piece: Piece, groups: int) -> int:
        """The number of bands of rows into which the product of each image is divided."""
        if self.folded:
            return 1
        columns = piece.rows * self.q
        bands = ceil_div(columns * self.depth * self.outputs, groups**2 * _SMALL_PRODUCT)
        bands = min(bands, piece.rows)
        while piece.rows % bands and bands < piece.rows:
            bands += 1
        return bands if columns >= bands * _SMALL_COLUMNS else 1


def workspace_bytes(geom: ConvGeometry, itemsize: int) -> int:
    """Memory of one lane for column matrices in the forward pass. Units: bytes."""
    depth = geom.c * geom.kernel[0] * geom.kernel[1]
    piece = _Division.of(geom.n, geom.p, geom.q, depth, geom.k).pieces[0]
    return depth * piece.images * piece.rows * geom.q * itemsize


class Im2colConvolution(ConvPasses):
    """Column matrices and their products. Caffe: base_conv_layer.cpp."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        epilogue: Epilogue,
        y: HostArray,
        weight_version: int | None,
    ) -> None:
        geom = plan.geometry
        matrix = weight.reshape(geom.group, geom.k // geom.group, -1)
        self._correlate(Window.forward(geom), x, matrix, epilogue, y)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        geom = plan.geometry
        if geom.stride != (1, 1):
            scatter(self._lanes, geom, dy, weight, dx)
            return
        g, (r, s) = geom.group, geom.kernel
        grouped = weight.reshape(g, geom.k // g, geom.c // g, r, s)[..., ::-1, ::-1]
        matrix = np.ascontiguousarray(grouped.swapaxes(1, 2)).reshape(g, geom.c // g, -1)
        self._correlate(Window.backward(geom), dy, matrix, Epilogue(), dx)

    def _correlate(
        self,
        window: Window,
        src: HostArray,
        matrix: HostArray,
        epilogue: Epilogue,
        dst: HostArray,
    ) -> None:
        """Slide a window over src. Shapes: matrix (group, outputs/group, inputs/group * R*S)."""
        n, outputs, rows, q = dst.shape
        groups, _, depth = matrix.shape
        division = _Division.of(n, rows, q, groups * depth, outputs)
        column = None if epilogue.bias is None else epilogue.bias.reshape(-1, 1, 1)

        def compute(lane: Lane, runner: Runner, piece: Piece) -> None:
            bands = division.split(piece, groups)
            columns = _matrices(
                gather(lane, src, window, piece, q, division.folded), division, groups, bands
            )
            target = piece.of(dst)
            product = target
            if division.folded:
                product = lane.scratch("conv.product", (outputs, *_folded(piece, q)), src.dtype)
            results = _results(product, division, groups, bands)
            _multiply(runner, matrix, columns, results)
            if division.folded:
                product = product.swapaxes(0, 1)
            if column is not None:
                product += column
            if epilogue.relu:
                zeros = lane.zeros(piece.rows * q, src.dtype).reshape(piece.rows, q)
                np.maximum(product, zeros, out=product)
            if division.folded:
                np.copyto(target, product)

        self._over(division.pieces, compute)

    def _over(self, pieces: list[Piece], compute: Callable[[Lane, Runner, Piece], None]) -> None:
        """Distribute pieces over lanes; if there are few, the lanes divide each piece."""
        few = len(pieces) < _FEW

        def task(lane: Lane, start: int, stop: int) -> None:
            compute(lane, self._lanes if few else lane, pieces[start])

        (self._lanes.in_turn if few else self._lanes.run)(task, len(pieces))

    def backward_weight(self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray) -> None:
        geom = plan.geometry
        g, window = geom.group, Window.forward(geom)
        total = dw.reshape(g, geom.k // g, -1)
        division = _Division.of(geom.n, geom.p, geom.q, g * total.shape[2], geom.k)
        most = max(1, min(_PARTS, _PARTS_BYTES // total.nbytes))
        share = ceil_div(len(division.pieces), most)
        parts = ceil_div(len(division.pieces), share)
        few = parts < _FEW
        sums = total[None]
        if parts > 1:
            sums = self._lanes.first.scratch("conv.sums", (parts, *total.shape), dw.dtype)
            sums[...] = 0.0

        def task(lane: Lane, start: int, stop: int) -> None:
            runner: Runner = self._lanes if few else lane
            for piece in division.pieces[start * share : stop * share]:
                bands = division.split(piece, g)
                columns = gather(lane, x, window, piece, geom.q, division.folded)
                top = piece.of(dy)
                if division.folded:
                    top = lane.scratch("conv.product", (geom.k, *_folded(piece, geom.q)), dy.dtype)
                    np.copyto(top, piece.of(dy).swapaxes(0, 1))
                _accumulate(
                    runner,
                    _results(top, division, g, bands),
                    _matrices(columns, division, g, bands),
                    sums[start],
                )

        (self._lanes.in_turn if few else self._lanes.run)(task, parts)
        if parts > 1:
            for part in sums:
                total += part


def _folded(piece: Piece, q: int) -> tuple[int, int, int]:
    return piece.images, piece.rows, q


def _matrices(columns: HostArray, division: _Division, groups: int, bands: int) -> HostArray:
    """Columns as (group, image, band, depth, columns); if folded, the image axis has length 1."""
    images = 1 if division.folded else columns.shape[0]
    split = columns.reshape(images, groups, division.depth // groups, bands, -1)
    return split.transpose(1, 0, 3, 2, 4)


def _results(array: HostArray, division: _Division, groups: int, bands: int) -> HostArray:
    """A view of outputs as (group, image, band, outputs, columns)."""
    if division.folded:
        return array.reshape(groups, 1, 1, division.outputs // groups, -1)
    n, outputs, rows, q = array.shape
    split = array.reshape(n, groups, outputs // groups, bands, rows // bands * q)
    return split.transpose(1, 0, 3, 2, 4)


def _multiply(runner: Runner, matrix: HostArray, columns: HostArray, results: HostArray) -> None:
    """results = matrix @ columns, divided by outputs if lanes share a piece."""
    outputs = matrix.shape[1]

    def task(lane: Lane, start: int, stop: int) -> None:
        for group, filters in enumerate(matrix):
            part = results[group, :, :, start:stop]
            np.matmul(filters[start:stop], columns[group], out=part)

    runner.run(task, outputs, _grain(runner, outputs))


def _accumulate(runner: Runner, top: HostArray, columns: HostArray, total: HostArray) -> None:
    """total += the products of top and columns transposed, summed over images and bands."""
    outputs = total.shape[1]

    def task(lane: Lane, start: int, stop: int) -> None:
        for group, into in enumerate(total):
            left, right = top[group, :, :, start:stop], columns[group].swapaxes(-1, -2)
            shape = (*left.shape[:2], stop - start, into.shape[1])
            products = lane.scratch("conv.products", shape, total.dtype)
            np.matmul(left, right, out=products)
            into[start:stop] += products.sum(axis=(0, 1))

    bounded = max(1, _PRODUCTS // (columns.shape[1] * columns.shape[2] * total.shape[2]))
    runner.run(task, outputs, min(bounded, _grain(runner, outputs)))


def _grain(runner: Runner, outputs: int) -> int:
    return outputs if isinstance(runner, Lane) else max(16, ceil_div(outputs, 8))
