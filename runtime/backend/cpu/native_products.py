"""Matrix products and the bias by the compiled kernels."""

from __future__ import annotations

from prototxt_gen.errors import ShapeError
from runtime.backend.base import HostArray, Layout, ProductOps
from runtime.backend.cpu.native_library import NativeLibrary, floats


def product_sizes(
    trans_a: bool, trans_b: bool, a: HostArray, b: HostArray, c: HostArray
) -> tuple[int, int, int]:
    """The rows and columns of op(a) op(b), and the depth of its sums.

    Shapes: op(a) (M,K), op(b) (K,N), c (M,N).

    Raises:
        ShapeError: the shapes do not agree.
    """
    rows, depth = a.shape[::-1] if trans_a else a.shape
    inner, cols = b.shape[::-1] if trans_b else b.shape
    if inner != depth or c.shape != (rows, cols):
        raise ShapeError(
            f"gemm: op(a) is {rows}x{depth}, op(b) {inner}x{cols}, c {c.shape}; "
            "expected (M,K), (K,N) and (M,N); check the shapes and the transpositions"
        )
    return rows, cols, depth


class NativeProducts(ProductOps):
    """ProductOps by the compiled kernels."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

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
        """See ProductOps.gemm.

        Raises:
            ShapeError: the shapes do not agree.
        """
        rows, cols, depth = product_sizes(trans_a, trans_b, a, b, c)
        library = self._library
        size = library.count("gemm_bytes", rows, cols, depth, library.threads)
        left, right = floats("gemm: a", a, a.size), floats("gemm: b", b, b.size)
        result = floats("gemm: c", c, c.size)
        sizes = (trans_a, trans_b, rows, cols, depth)
        with library.workspace(size) as space:
            library.run("gemm", *sizes, alpha, left, right, beta, result, space)

    def bias_forward(self, layout: Layout, bias: HostArray, y: HostArray) -> None:
        operands = (
            floats("bias_forward: bias", bias, layout.channels),
            floats("bias_forward: y", y, layout.outer * layout.channels * layout.inner),
        )
        self._library.run("bias_forward", layout.outer, layout.channels, layout.inner, *operands)

    def bias_backward(self, layout: Layout, dy: HostArray, db: HostArray) -> None:
        operands = (
            floats("bias_backward: dy", dy, layout.outer * layout.channels * layout.inner),
            floats("bias_backward: db", db, layout.channels),
        )
        self._library.run("bias_backward", layout.outer, layout.channels, layout.inner, *operands)
