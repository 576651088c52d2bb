"""Matrix products, with their tiles, splits and strides; and the bias."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prototxt_gen.errors import ShapeError
from runtime.backend.base import Layout, ProductOps
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import Launcher, blocks, expect_size

SLAB = 8
"""The depth is split in multiples of this; see cuda_kernels/tile_product.cuh."""
# A product of fewer tiles than a large GPU runs at a time is split along its depth, into parts of
# at least _SHORTEST_SPLIT. These numbers do not depend on the device, so neither do the results.
_FEW_TILES = 132
_WANTED_BLOCKS = 512
_SHORTEST_SPLIT = 256


@dataclass(frozen=True)
class Tile:
    """Rows and columns of the product that one block computes; a thread computes 8 x 8."""

    rows: int
    cols: int

    @property
    def threads(self) -> int:
        return self.rows * self.cols // 64

    def grid(self, rows: int, cols: int) -> int:
        """The number of tiles that cover a matrix."""
        return blocks(rows, self.rows) * blocks(cols, self.cols)

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


LARGE, WIDE, SMALL = Tile(128, 128), Tile(64, 128), Tile(64, 64)


@dataclass(frozen=True)
class Splits:
    """A depth split into `count` parts of `chunk`; the last part is the remainder."""

    count: int
    chunk: int

    @classmethod
    def of(cls, depth: int, most: int, unit: int = SLAB) -> Splits:
        """Split into at most `most` parts, whose length is a multiple of `unit`."""
        chunk = blocks(blocks(depth, max(1, most)), unit) * unit
        return cls(blocks(depth, chunk), chunk)


@dataclass(frozen=True)
class Product:
    """C (m,n) = A (m,k) B (k,n), `batch` times. Units: strides (a_row ... c_batch) in elements."""

    m: int
    n: int
    k: int
    a_row: int
    a_depth: int
    b_depth: int
    b_col: int
    c_row: int
    batch: int = 1
    a_batch: int = 0
    b_batch: int = 0
    c_batch: int = 0

    @property
    def tile(self) -> Tile:
        """The largest tile that fits the sizes, as larger tiles read less memory."""
        if self.n <= SMALL.cols:
            return SMALL
        return WIDE if self.m <= WIDE.rows else LARGE

    def splits(self, wanted_blocks: int = _WANTED_BLOCKS) -> Splits:
        """How the depth is split; depends on the sizes alone."""
        tiles = self.tile.grid(self.m, self.n) * self.batch
        parts = wanted_blocks // tiles if tiles < _FEW_TILES else 1
        return Splits.of(self.k, min(parts, self.k // _SHORTEST_SPLIT))


class CudaProducts(ProductOps):
    """ProductOps by CUDA kernels, and products with strides for the convolutions."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def gemm(
        self,
        trans_a: bool,
        trans_b: bool,
        alpha: float,
        a: DeviceArray,
        b: DeviceArray,
        beta: float,
        c: DeviceArray,
    ) -> None:
        product = _product(trans_a, trans_b, a, b, c)
        if not c.size:
            return
        if not product.k:
            # Multiplying by 0 would keep NaN and infinity.
            name, args = ("fill", (c, c.size, 0.0)) if beta == 0 else ("scal", (c, c.size, beta))
            self._launcher.elementwise("vectors", name, c.size, args)
            return
        splits = product.splits()
        if splits.count == 1:
            self.multiply(product, splits, a, b, c, alpha, beta)
            return
        (partial,) = self._launcher.scratch(splits.count * c.size)
        parts = replace(product, c_batch=c.size)
        self.multiply(parts, splits, a, b, partial)
        self.sum_splits(partial, splits.count, c, alpha, beta)

    def bias_forward(self, layout: Layout, bias: DeviceArray, y: DeviceArray) -> None:
        _expect_layout("bias_forward", layout, bias, y)
        args = (bias, y, y.size, layout.channels, layout.inner)
        self._launcher.elementwise("bias", "bias_forward", y.size, args)

    def bias_backward(self, layout: Layout, dy: DeviceArray, db: DeviceArray) -> None:
        _expect_layout("bias_backward", layout, db, dy)
        launcher, channels = self._launcher, layout.channels
        if layout.inner == 1:
            lanes = launcher.constant("bias", "ROW_LANES")
            width = launcher.constant("bias", "ROWS_BLOCK") // lanes
            args = (dy, db, layout.outer, channels)
            grid = blocks(channels, width)
            launcher.run("bias", "bias_backward_rows", grid, args, (width, lanes, 1))
            return
        pieces = blocks(layout.outer * layout.inner, launcher.constant("bias", "PIECE"))
        (partial,) = launcher.scratch(channels * pieces)
        launcher.run(
            "bias",
            "bias_backward_pieces",
            (pieces, channels, 1),
            (dy, partial, layout.outer, channels, layout.inner),
        )
        warps = launcher.constant("bias", "BLOCK") // 32
        args = (partial, db, channels, pieces)
        launcher.run("bias", "bias_backward_sums", blocks(channels, warps), args)

    def multiply(
        self,
        product: Product,
        splits: Splits,
        a: DeviceArray,
        b: DeviceArray,
        c: DeviceArray,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        """C = alpha A B + beta C; with splits, matrix i * splits + s of C is part s of product i.

        Shapes: see Product.
        """
        self._launcher.run(
            "gemm",
            f"gemm_{product.tile}",
            (product.tile.grid(product.m, product.n), 1, product.batch * splits.count),
            (
                *(a, b, c, product.m, product.n, product.k),
                *(product.a_row, product.a_depth, product.b_depth, product.b_col, product.c_row),
                *(product.a_batch, product.b_batch, product.c_batch),
                *(splits.count, splits.chunk, alpha, beta),
            ),
        )

    def sum_splits(
        self, partial: DeviceArray, splits: int, c: DeviceArray, alpha: float, beta: float
    ) -> None:
        """c = alpha * (sum of partial over splits) + beta * c.

        Shapes: partial (splits,count), c (count,).
        """
        args = (partial, c, c.size, splits, alpha, beta)
        self._launcher.elementwise("gemm", "gemm_sum_splits", c.size, args)


def _product(
    trans_a: bool, trans_b: bool, a: DeviceArray, b: DeviceArray, c: DeviceArray
) -> Product:
    m, k = a.shape[::-1] if trans_a else a.shape
    k_b, n = b.shape[::-1] if trans_b else b.shape
    if (m, n) != c.shape or k != k_b:
        raise ShapeError(
            f"gemm: op(a) is {m}x{k}, op(b) is {k_b}x{n} and c is {c.shape}; expected (M,K), (K,N) "
            "and (M,N); check the shapes"
        )
    a_row, a_depth = (1, m) if trans_a else (k, 1)
    b_depth, b_col = (1, k) if trans_b else (n, 1)
    return Product(m, n, k, a_row, a_depth, b_depth, b_col, n)


def _expect_layout(op: str, layout: Layout, bias: DeviceArray, y: DeviceArray) -> None:
    expect_size(op, bias, (layout.channels,))
    expect_size(op, y, (layout.outer, layout.channels, layout.inner))
