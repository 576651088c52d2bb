"""Convolution as im2col and matrix products: any geometry, every sum term by term."""

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

# Elements of the column matrices of one piece: about a core's second-level cache in float32.
_COLUMNS = 1 << 18
# Maps smaller than this are folded: all images of a piece side by side in one matrix, because a
# product with few columns spends its time reading the weights.
_NARROW = 256
_FOLDED_COLUMNS = 512
# OpenBLAS multiplies matrices of up to 10^6 multiply-adds without repacking them first, which is
# faster where one side is short.
_SMALL_PRODUCT = 1_000_000
_SMALL_COLUMNS = 64
# With fewer pieces than this, lanes share the products inside a piece instead.
_FEW = 4
# Weight gradients are added up in so many partial sums at most, and in so many bytes.
_PARTS = 8
_PARTS_BYTES = 32 << 20
# Elements of the products behind a weight gradient that are held at once.
_PRODUCTS = 1 << 22


@dataclass(frozen=True)
class _Cut:
    """How one pass is cut: pieces, whether they are folded, and rows of one small product."""

    pieces: list[Piece]
    folded: bool
    depth: int
    outputs: int
    q: int

    @classmethod
    def of(cls, n: int, rows: int, q: int, depth: int, outputs: int) -> _Cut:
        """Cut n images of rows x q outputs; `depth` and `outputs` count all groups."""
        folded = n > 1 and rows * q < _NARROW
        limit = max(_COLUMNS // depth, _FOLDED_COLUMNS)
        return cls(cut(n, rows, q, limit), folded, depth, outputs, q)

    def split(self, piece: Piece, groups: int) -> int:
        """In how many bands of rows the product of each image is best computed."""
        if self.folded:
            return 1
        columns = piece.rows * self.q
        bands = ceil_div(columns * self.depth * self.outputs, groups**2 * _SMALL_PRODUCT)
        bands = min(bands, piece.rows)
        while piece.rows % bands and bands < piece.rows:
            bands += 1
        return bands if columns >= bands * _SMALL_COLUMNS else 1


def workspace_bytes(geom: ConvGeometry, itemsize: int) -> int:
    """Scratch of one lane in the forward pass: the column matrices."""
    depth = geom.c * geom.kernel[0] * geom.kernel[1]
    piece = _Cut.of(geom.n, geom.p, geom.q, depth, geom.k).pieces[0]
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
        how = _Cut.of(n, rows, q, groups * depth, outputs)
        column = None if epilogue.bias is None else epilogue.bias.reshape(-1, 1, 1)

        def compute(lane: Lane, runner: Runner, piece: Piece) -> None:
            bands = how.split(piece, groups)
            columns = _matrices(gather(lane, src, window, piece, q, how.folded), how, groups, bands)
            target = piece.of(dst)
            product = target
            if how.folded:
                product = lane.scratch("conv.product", (outputs, *_folded(piece, q)), src.dtype)
            results = _results(product, how, groups, bands)
            _multiply(runner, matrix, columns, results)
            if how.folded:
                product = product.swapaxes(0, 1)
            if column is not None:
                product += column
            if epilogue.relu:
                zeros = lane.zeros(piece.rows * q, src.dtype).reshape(piece.rows, q)
                np.maximum(product, zeros, out=product)
            if how.folded:
                np.copyto(target, product)

        self._over(how.pieces, compute)

    def _over(self, pieces: list[Piece], compute: Callable[[Lane, Runner, Piece], None]) -> None:
        """Deal pieces to lanes; where they are few, let lanes share each of them."""
        few = len(pieces) < _FEW

        def task(lane: Lane, start: int, stop: int) -> None:
            compute(lane, self._lanes if few else lane, pieces[start])

        (self._lanes.in_turn if few else self._lanes.run)(task, len(pieces))

    def backward_weight(self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray) -> None:
        geom = plan.geometry
        g, window = geom.group, Window.forward(geom)
        total = dw.reshape(g, geom.k // g, -1)
        how = _Cut.of(geom.n, geom.p, geom.q, g * total.shape[2], geom.k)
        most = max(1, min(_PARTS, _PARTS_BYTES // total.nbytes))
        share = ceil_div(len(how.pieces), most)
        parts = ceil_div(len(how.pieces), share)
        few = parts < _FEW
        sums = total[None]
        if parts > 1:
            sums = self._lanes.first.scratch("conv.sums", (parts, *total.shape), dw.dtype)
            sums[...] = 0.0

        def task(lane: Lane, start: int, stop: int) -> None:
            runner: Runner = self._lanes if few else lane
            for piece in how.pieces[start * share : stop * share]:
                bands = how.split(piece, g)
                columns = gather(lane, x, window, piece, geom.q, how.folded)
                top = piece.of(dy)
                if how.folded:
                    top = lane.scratch("conv.product", (geom.k, *_folded(piece, geom.q)), dy.dtype)
                    np.copyto(top, piece.of(dy).swapaxes(0, 1))
                _accumulate(
                    runner,
                    _results(top, how, g, bands),
                    _matrices(columns, how, g, bands),
                    sums[start],
                )

        (self._lanes.in_turn if few else self._lanes.run)(task, parts)
        if parts > 1:
            for part in sums:
                total += part


def _folded(piece: Piece, q: int) -> tuple[int, int, int]:
    return piece.images, piece.rows, q


def _matrices(columns: HostArray, how: _Cut, groups: int, bands: int) -> HostArray:
    """Columns as (group, image, band, depth, columns); folded, all images are one."""
    images = 1 if how.folded else columns.shape[0]
    split = columns.reshape(images, groups, how.depth // groups, bands, -1)
    return split.transpose(1, 0, 3, 2, 4)


def _results(array: HostArray, how: _Cut, groups: int, bands: int) -> HostArray:
    """Outputs as (group, image, band, outputs, columns): a view, also of some rows of images."""
    if how.folded:
        return array.reshape(groups, 1, 1, how.outputs // groups, -1)
    n, outputs, rows, q = array.shape
    split = array.reshape(n, groups, outputs // groups, bands, rows // bands * q)
    return split.transpose(1, 0, 3, 2, 4)


def _multiply(runner: Runner, matrix: HostArray, columns: HostArray, results: HostArray) -> None:
    """results = matrix @ columns; lanes that share a piece take some outputs each."""
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
