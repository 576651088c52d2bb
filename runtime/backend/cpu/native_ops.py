"""Every op but convolution by the compiled kernels. Contracts: see Backend."""

from __future__ import annotations

import ctypes
import math

import numpy as np

from prototxt_gen.errors import ShapeError
from prototxt_gen.geometry import LRNGeometry, PoolGeometry
from runtime.backend.base import Draw, HostArray, Layout
from runtime.backend.cpu.native_library import NativeLibrary, Workspace, elements, floats
from runtime.backend.cpu.native_signatures import PoolShape

_BYTE = np.dtype(np.uint8)
_INDEX = np.dtype(np.int32)


class NativeVectors:
    """See the section "Vectors of any shape" of Backend."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

    def copy(self, src: HostArray, dst: HostArray) -> None:
        size, dtype = src.size, src.dtype
        source, target = (
            elements("copy: src", src, size, dtype),
            elements("copy: dst", dst, size, dtype),
        )
        self._library.run("copy", src.nbytes, source, target)

    def fill(self, x: HostArray, value: float) -> None:
        self._library.run("fill", x.size, value, floats("fill: x", x, x.size))

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


class NativeProducts:
    """See the section "Products" of Backend."""

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
        rows, depth = a.shape[::-1] if trans_a else a.shape
        inner, cols = b.shape[::-1] if trans_b else b.shape
        if inner != depth or c.shape != (rows, cols):
            raise ShapeError(
                f"gemm: op(a) is {rows}x{depth}, op(b) {inner}x{cols}, c {c.shape}; "
                "expected (M,K), (K,N) and (M,N); check the shapes and the transpositions"
            )
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


class NativeNeurons:
    """See the section "Neurons" of Backend."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

    def relu_forward(self, x: HostArray, y: HostArray, negative_slope: float) -> None:
        n = x.size
        operands = (floats("relu_forward: x", x, n), floats("relu_forward: y", y, n))
        self._library.run("relu_forward", n, negative_slope, *operands)

    def relu_backward(
        self, x: HostArray, dy: HostArray, dx: HostArray, negative_slope: float
    ) -> None:
        n = x.size
        operands = (
            floats("relu_backward: x", x, n),
            floats("relu_backward: dy", dy, n),
            floats("relu_backward: dx", dx, n),
        )
        self._library.run("relu_backward", n, negative_slope, *operands)

    def dropout_forward(
        self, x: HostArray, y: HostArray, mask: HostArray, ratio: float, draw: Draw
    ) -> None:
        n, samples = x.size, x.shape[0] if x.ndim else 1
        # A uniform number is a whole multiple of 2^-24, so the comparison is exact on integers.
        threshold = math.ceil(ratio * 2**24)
        operands = (
            floats("dropout_forward: x", x, n),
            elements("dropout_forward: mask", mask, n, _BYTE),
            floats("dropout_forward: y", y, n),
        )
        word = (1 << 64) - 1
        self._library.run(
            "dropout_forward",
            samples,
            n // max(1, samples),
            draw.first_sample & word,
            draw.seed & word,
            draw.stream & 0xFFFFFFFF,
            threshold,
            _scale(ratio),
            *operands,
        )

    def dropout_backward(self, dy: HostArray, mask: HostArray, dx: HostArray, ratio: float) -> None:
        n = dy.size
        operands = (
            floats("dropout_backward: dy", dy, n),
            elements("dropout_backward: mask", mask, n, _BYTE),
            floats("dropout_backward: dx", dx, n),
        )
        self._library.run("dropout_backward", n, _scale(ratio), *operands)


def _scale(ratio: float) -> float:
    """Of what is kept. Ratio 1 keeps nothing, and needs no scale."""
    return 1.0 / (1.0 - ratio) if ratio < 1.0 else 1.0


class NativePool:
    """See the section "Pooling" of Backend."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

    def max_pool_forward(
        self, geom: PoolGeometry, x: HostArray, y: HostArray, mask: HostArray
    ) -> None:
        inputs, outputs = _sizes(geom)
        operands = (
            floats("max_pool_forward: x", x, inputs),
            floats("max_pool_forward: y", y, outputs),
            elements("max_pool_forward: mask", mask, outputs, _INDEX),
        )
        self._library.run("max_pool_forward", ctypes.byref(PoolShape.of(geom)), *operands)

    def max_pool_backward(
        self, geom: PoolGeometry, dy: HostArray, mask: HostArray, dx: HostArray
    ) -> None:
        inputs, outputs = _sizes(geom)
        operands = (
            floats("max_pool_backward: dy", dy, outputs),
            elements("max_pool_backward: mask", mask, outputs, _INDEX),
            floats("max_pool_backward: dx", dx, inputs),
        )
        self._library.run("max_pool_backward", ctypes.byref(PoolShape.of(geom)), *operands)

    def ave_pool_forward(self, geom: PoolGeometry, x: HostArray, y: HostArray) -> None:
        inputs, outputs = _sizes(geom)
        operands = (
            floats("ave_pool_forward: x", x, inputs),
            floats("ave_pool_forward: y", y, outputs),
        )
        self._library.run("ave_pool_forward", ctypes.byref(PoolShape.of(geom)), *operands)

    def ave_pool_backward(self, geom: PoolGeometry, dy: HostArray, dx: HostArray) -> None:
        inputs, outputs = _sizes(geom)
        operands = (
            floats("ave_pool_backward: dy", dy, outputs),
            floats("ave_pool_backward: dx", dx, inputs),
        )
        self._library.run("ave_pool_backward", ctypes.byref(PoolShape.of(geom)), *operands)


def _sizes(geom: PoolGeometry) -> tuple[int, int]:
    planes = geom.n * geom.c
    return planes * geom.h * geom.w, planes * geom.p * geom.q


class NativeLRN:
    """See the section "Normalisation across channels" of Backend."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

    def lrn_forward(self, geom: LRNGeometry, x: HostArray, scale: HostArray, y: HostArray) -> None:
        n = geom.n * geom.c * geom.h * geom.w
        operands = (
            floats("lrn_forward: x", x, n),
            floats("lrn_forward: scale", scale, n),
            floats("lrn_forward: y", y, n),
        )
        sizes = (geom.n, geom.c, geom.h * geom.w, geom.size)
        numbers = (geom.alpha, geom.beta, geom.k)
        with self._space(geom) as space:
            self._library.run("lrn_forward", *sizes, *numbers, *operands, space)

    def lrn_backward(
        self,
        geom: LRNGeometry,
        x: HostArray,
        y: HostArray,
        scale: HostArray,
        dy: HostArray,
        dx: HostArray,
    ) -> None:
        n = geom.n * geom.c * geom.h * geom.w
        operands = (
            floats("lrn_backward: x", x, n),
            floats("lrn_backward: y", y, n),
            floats("lrn_backward: scale", scale, n),
            floats("lrn_backward: dy", dy, n),
            floats("lrn_backward: dx", dx, n),
        )
        sizes = (geom.n, geom.c, geom.h * geom.w, geom.size)
        with self._space(geom) as space:
            self._library.run("lrn_backward", *sizes, geom.alpha, geom.beta, *operands, space)

    def _space(self, geom: LRNGeometry) -> Workspace:
        size = self._library.count("lrn_bytes", geom.c, self._library.threads)
        return self._library.workspace(size)
