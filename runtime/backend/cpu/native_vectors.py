"""Vectors of any shape by the compiled kernels."""

from __future__ import annotations

from runtime.backend.base import HostArray, VectorOps
from runtime.backend.cpu.native_library import NativeLibrary, Workspace, floats


class NativeVectors(VectorOps):
    """VectorOps by the compiled kernels."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

    def axpy(self, alpha: float, x: HostArray, y: HostArray) -> None:
        n = y.size
        self._library.run("axpy", n, alpha, floats("axpy: x", x, n), floats("axpy: y", y, n))

    def scal(self, alpha: float, x: HostArray) -> None:
        self._library.run("scal", x.size, alpha, floats("scal: x", x, x.size))

    def sub(self, x: HostArray, y: HostArray, out: HostArray) -> None:
        n = out.size
        operands = (floats("sub: x", x, n), floats("sub: y", y, n), floats("sub: out", out, n))
        self._library.run("sub", n, *operands)

    def asum(self, x: HostArray) -> float:
        operand = floats("asum: x", x, x.size)
        with self._sums(x) as space:
            return float(self._library.run("asum", x.size, operand, space))

    def sumsq(self, x: HostArray) -> float:
        operand = floats("sumsq: x", x, x.size)
        with self._sums(x) as space:
            return float(self._library.run("sumsq", x.size, operand, space))

    def dot(self, x: HostArray, y: HostArray) -> float:
        n = x.size
        operands = (floats("dot: x", x, n), floats("dot: y", y, n))
        with self._sums(x) as space:
            return float(self._library.run("dot", n, *operands, space))

    def _sums(self, x: HostArray) -> Workspace:
        return self._library.workspace(self._library.count("sum_bytes", x.size))

    def sgd_update(
        self,
        w: HostArray,
        dw: HostArray,
        history: HostArray,
        lr: float,
        momentum: float,
        decay: float,
    ) -> None:
        n = w.size
        operands = (
            floats("sgd_update: dw", dw, n),
            floats("sgd_update: history", history, n),
            floats("sgd_update: w", w, n),
        )
        self._library.run("sgd_update", n, lr, momentum, decay, *operands)
