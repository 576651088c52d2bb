"""Functions of the numbers at one place by the compiled kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from runtime.backend.base import Function, HostArray, Layout, PointwiseOps
from runtime.backend.cpu.lanes import Runner
from runtime.backend.cpu.native_library import NativeLibrary, elements, floats
from runtime.backend.cpu.native_signatures import EltwiseInputs
from runtime.backend.cpu.pointwise import NumpyPointwise

_INDEX = np.dtype(np.int32)


class NativePointwise(PointwiseOps):
    """PointwiseOps by the compiled kernels; with more than `EltwiseInputs.MOST` inputs in NumPy."""

    def __init__(self, runner: Runner, library: NativeLibrary) -> None:
        self._library = library
        self._numpy = NumpyPointwise(runner)

    def function_forward(self, function: Function, x: HostArray, y: HostArray) -> None:
        f, n = function, x.size
        operands = (floats("function_forward: x", x, n), floats("function_forward: y", y, n))
        self._library.run("function_forward", n, int(f.kind), f.a, f.b, f.c, *operands)

    def function_backward(
        self, function: Function, x: HostArray, y: HostArray, dy: HostArray, dx: HostArray
    ) -> None:
        f, operands = function, _same_size("function_backward", x, y, dy, dx)
        self._library.run("function_backward", x.size, int(f.kind), f.a, f.b, f.c, *operands)

    def swish_backward(
        self, beta: float, gate: HostArray, y: HostArray, dy: HostArray, dx: HostArray
    ) -> None:
        operands = _same_size("swish_backward", gate, y, dy, dx)
        self._library.run("swish_backward", gate.size, beta, *operands)

    def affine(
        self,
        layout: Layout,
        x: HostArray,
        centre: HostArray | None,
        scale: HostArray | None,
        shift: HostArray | None,
        relu: bool,
        y: HostArray,
    ) -> None:
        sizes, count = _sizes(layout)
        parameters = [
            None if values is None else floats(f"affine: {name}", values, layout.channels)
            for name, values in (("centre", centre), ("scale", scale), ("shift", shift))
        ]
        source, target = floats("affine: x", x, count), floats("affine: y", y, count)
        self._library.run("affine", *sizes, source, *parameters, relu, target)

    def product_sums(self, layout: Layout, x: HostArray, y: HostArray, sums: HostArray) -> None:
        self._product_sums("product_sums", layout, x, y, sums, below=False)

    def _product_sums(
        self, op: str, layout: Layout, x: HostArray, y: HostArray, sums: HostArray, *, below: bool
    ) -> None:
        sizes, count = _sizes(layout)
        left, right = floats(f"{op}: x", x, count), floats(f"{op}: y", y, count)
        result = floats(f"{op}: sums", sums, layout.channels)
        self._library.run("product_sums", *sizes, left, right, below, result)

    def eltwise_sum(
        self,
        inputs: Sequence[HostArray],
        coefficients: Sequence[float],
        relu: bool,
        y: HostArray,
    ) -> None:
        if len(inputs) > EltwiseInputs.MOST:
            self._library.prevent_replay()
            self._numpy.eltwise_sum(inputs, coefficients, relu, y)
            return
        struct = ctypes.byref(_inputs("eltwise_sum", inputs, coefficients, y.size))
        self._library.run("eltwise_sum", y.size, struct, relu, floats("eltwise_sum: y", y, y.size))

    def eltwise_product(self, inputs: Sequence[HostArray], y: HostArray) -> None:
        if len(inputs) > EltwiseInputs.MOST:
            self._library.prevent_replay()
            self._numpy.eltwise_product(inputs, y)
            return
        struct = ctypes.byref(_inputs("eltwise_product", inputs, (1.0,) * len(inputs), y.size))
        target = floats("eltwise_product: y", y, y.size)
        self._library.run("eltwise_product", y.size, struct, target)

    def eltwise_max(self, inputs: Sequence[HostArray], y: HostArray, winner: HostArray) -> None:
        if len(inputs) > EltwiseInputs.MOST:
            self._library.prevent_replay()
            self._numpy.eltwise_max(inputs, y, winner)
            return
        struct = ctypes.byref(_inputs("eltwise_max", inputs, (1.0,) * len(inputs), y.size))
        target = floats("eltwise_max: y", y, y.size)
        index = elements("eltwise_max: winner", winner, y.size, _INDEX)
        self._library.run("eltwise_max", y.size, struct, target, index)

    def eltwise_max_backward(
        self, dy: HostArray, winner: HostArray, index: int, dx: HostArray
    ) -> None:
        n, op = dy.size, "eltwise_max_backward"
        operands = (
            floats(f"{op}: dy", dy, n),
            elements(f"{op}: winner", winner, n, _INDEX),
            floats(f"{op}: dx", dx, n),
        )
        self._library.run(op, n, index, *operands)

    def prelu_forward(self, layout: Layout, x: HostArray, slope: HostArray, y: HostArray) -> None:
        self._prelu("prelu_forward", layout, x, x, slope, y)

    def prelu_backward(
        self, layout: Layout, x: HostArray, dy: HostArray, slope: HostArray, dx: HostArray
    ) -> None:
        self._prelu("prelu_backward", layout, x, dy, slope, dx)

    def _prelu(
        self,
        op: str,
        layout: Layout,
        x: HostArray,
        dy: HostArray,
        slope: HostArray,
        out: HostArray,
    ) -> None:
        sizes, count = _sizes(layout)
        operands = (
            floats(f"{op}: x", x, count),
            floats(f"{op}: dy", dy, count),
            floats(f"{op}: slope", slope, layout.channels),
            floats(f"{op}: result", out, count),
        )
        self._library.run("prelu", *sizes, *operands)

    def prelu_backward_slope(
        self, layout: Layout, x: HostArray, dy: HostArray, dslope: HostArray
    ) -> None:
        self._product_sums("prelu_backward_slope", layout, x, dy, dslope, below=True)


def _same_size(op: str, *arrays: HostArray) -> list[int]:
    """The addresses of arrays that have as many elements as the first."""
    return [floats(f"{op}: operand {i}", array, arrays[0].size) for i, array in enumerate(arrays)]


def _sizes(layout: Layout) -> tuple[tuple[int, int, int], int]:
    """The sizes of a layout and the number of its elements."""
    sizes = layout.outer, layout.channels, layout.inner
    return sizes, layout.outer * layout.channels * layout.inner


def _inputs(
    op: str, inputs: Sequence[HostArray], coefficients: Sequence[float], count: int
) -> EltwiseInputs:
    pointers = [floats(f"{op}: input {i}", x, count) for i, x in enumerate(inputs)]
    return EltwiseInputs.of(pointers, coefficients)
