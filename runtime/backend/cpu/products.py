"""Matrix products and the bias, in blocks that are distributed over lanes."""

from __future__ import annotations

import numpy as np

from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray, Layout, ProductOps
from runtime.backend.cpu.lanes import Lane, Runner

# The maximum rows and columns of a block of a product; small products are one block.
_BLOCK = 1024
_SMALL = 1 << 20
# Blocks that are added to c fit in the cache of a core.
_ADDED = (256, 512)
_BIAS_GRAIN = 1 << 16


class NumpyProducts(ProductOps):
    """ProductOps in NumPy."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def gemm(
        self,
        trans_a: bool,
        trans_b: bool,
        alpha: float,
        a: HostArray,
        b: HostArray,
        beta: float,
        c: HostArray,
    ) -> None:
        left, right = (a.T if trans_a else a), (b.T if trans_b else b)
        rows, cols = c.shape
        if rows * cols * left.shape[1] <= _SMALL:
            block_rows, block_cols = max(rows, 1), max(cols, 1)
        elif beta == 0.0:
            block_rows, block_cols = _block(rows, _BLOCK), _block(cols, _BLOCK)
        else:
            block_rows, block_cols = _block(rows, _ADDED[0]), _block(cols, _ADDED[1])
        across = ceil_div(cols, block_cols)

        def task(lane: Lane, start: int, stop: int) -> None:
            r, s = start // across * block_rows, start % across * block_cols
            part = (slice(r, r + block_rows), slice(s, s + block_cols))
            _block_product(lane, alpha, left[part[0]], right[:, part[1]], beta, c[part])

        self._runner.run(task, ceil_div(rows, block_rows) * across)

    def bias_forward(self, layout: Layout, bias: HostArray, y: HostArray) -> None:
        y3 = y.reshape(layout.outer, layout.channels, layout.inner)

        def task(lane: Lane, start: int, stop: int) -> None:
            if layout.inner == 1:
                y3[start:stop, :, 0] += bias.reshape(-1)
            else:
                y3[start:stop] += bias.reshape(-1, 1)

        self._runner.run(task, layout.outer, _outer_grain(layout))

    def bias_backward(self, layout: Layout, dy: HostArray, db: HostArray) -> None:
        dy3 = dy.reshape(layout.outer, layout.channels, layout.inner)
        if layout.inner == 1:
            sums = dy3[:, :, 0]
        else:
            sums = np.empty((layout.outer, layout.channels), dy3.dtype)

            def task(lane: Lane, start: int, stop: int) -> None:
                np.add.reduce(dy3[start:stop], axis=2, out=sums[start:stop])

            self._runner.run(task, layout.outer, _outer_grain(layout))
        db.reshape(-1)[...] += sums.sum(axis=0)


def _block(size: int, limit: int) -> int:
    """The block size along one dimension: at least 4 blocks if it is long, none over the limit."""
    if size <= min(256, limit):
        return max(size, 1)
    parts = max(4, ceil_div(size, limit))
    return ceil_div(size, parts)


def _block_product(
    lane: Lane, alpha: float, a: HostArray, b: HostArray, beta: float, c: HostArray
) -> None:
    """Compute one block of c = alpha a b + beta c."""
    if beta == 0.0:
        np.matmul(a, b, out=c)
        if alpha != 1.0:
            c *= alpha
        return
    product = lane.scratch("product", c.shape, c.dtype)
    np.matmul(a, b, out=product)
    if alpha != 1.0:
        product *= alpha
    if beta != 1.0:
        c *= beta
    c += product


def _outer_grain(layout: Layout) -> int:
    return max(1, _BIAS_GRAIN // max(1, layout.channels * layout.inner))
