"""Matrix products and convolution in precision bf16 by the compiled kernels."""

from __future__ import annotations

import ctypes
import math

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvOps, ConvPlan, Epilogue, HostArray, Layout
from runtime.backend.conv_empty import EMPTY, EmptyConvolution, is_empty
from runtime.backend.cpu.bf16_numpy import ALGORITHM
from runtime.backend.cpu.native_library import NativeLibrary, floats
from runtime.backend.cpu.native_memory import NativeMemory
from runtime.backend.cpu.native_neurons import NativeNeurons
from runtime.backend.cpu.native_products import NativeProducts, product_sizes
from runtime.backend.cpu.native_signatures import ConvShape

AMX = "amx"
"""The instruction set with an instruction for the product."""
_FORWARD, _DATA, _WEIGHT = range(3)


def round_map(library: NativeLibrary, y: HostArray) -> None:
    """Round a map to bf16. Shapes: any."""
    library.run("round_bf16", y.size, floats("round_bf16: y", y, y.size))


class NativeBf16Products(NativeProducts):
    """ProductOps with the operands of `gemm` rounded; maps with a bias are rounded.

    `tiles` selects the unit of tiles, which is emulated if the instruction set is not AMX; the
    results have the same bits.
    """

    def __init__(self, library: NativeLibrary, tiles: bool | None = None) -> None:
        super().__init__(library)
        self._tiles = library.isa == AMX if tiles is None else tiles

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
        rows, cols, depth = product_sizes(trans_a, trans_b, a, b, c)
        library = self._library
        sizes = (rows, cols, alpha, beta, self._tiles, library.threads)
        left, right = floats("gemm: a", a, a.size), floats("gemm: b", b, b.size)
        result = floats("gemm: c", c, c.size)
        form = (self._tiles, trans_a, trans_b, rows, cols, depth)
        with library.workspace(library.count("gemm_bf16_bytes", *sizes)) as space:
            library.run("gemm_bf16", *form, alpha, left, right, beta, result, space)

    def bias_forward(self, layout: Layout, bias: HostArray, y: HostArray) -> None:
        super().bias_forward(layout, bias, y)
        round_map(self._library, y)


class NativeBf16Convolution(ConvOps):
    """ConvOps with operands and maps rounded to bf16. `tiles`: see NativeBf16Products."""

    def __init__(self, library: NativeLibrary, tiles: bool | None = None) -> None:
        self._library = library
        self._tiles = library.isa == AMX if tiles is None else tiles
        self._empty = EmptyConvolution(
            NativeMemory(library), NativeBf16Products(library), NativeNeurons(library)
        )

    def plan(self, geom: ConvGeometry) -> ConvPlan:
        if is_empty(geom):
            return ConvPlan(geom, EMPTY, 0, {})
        shape = ConvShape.of(geom)
        sizes = [
            self._library.count(
                "conv_bf16_bytes", shape, direction, self._tiles, self._library.threads
            )
            for direction in (_FORWARD, _DATA, _WEIGHT)
        ]
        return ConvPlan(geom, ALGORITHM, max(sizes), {"shape": shape, "sizes": sizes})

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        epilogue: Epilogue,
        y: HostArray,
        weight_version: int | None,
    ) -> None:
        if plan.algorithm == EMPTY:
            self._empty.forward(plan, x, weight, epilogue, y, weight_version)
            return
        geom, bias = plan.geometry, epilogue.bias
        source, filters, target = _operands("conv_forward", geom, x, weight, y)
        offset = None if bias is None else floats("conv_forward: bias", bias, geom.k)
        self._run(plan, _FORWARD, "forward", source, filters, offset, epilogue.relu, target)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        if plan.algorithm == EMPTY:
            self._empty.backward_data(plan, dy, weight, dx, weight_version)
            return
        target, filters, source = _operands("conv_backward_data", plan.geometry, dx, weight, dy)
        self._run(plan, _DATA, "backward_data", source, filters, target)

    def backward_weight(self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray) -> None:
        if plan.algorithm == EMPTY:
            return
        source, target, top = _operands("conv_backward_weight", plan.geometry, x, dw, dy)
        self._run(plan, _WEIGHT, "backward_weight", source, top, target)

    def _run(self, plan: ConvPlan, direction: int, name: str, *operands: object) -> None:
        shape = ctypes.byref(plan.cache["shape"])
        with self._library.workspace(plan.cache["sizes"][direction]) as space:
            self._library.run(f"conv_bf16_{name}", self._tiles, shape, *operands, space)


def _operands(
    op: str, geom: ConvGeometry, x: HostArray, weight: HostArray, y: HostArray
) -> tuple[int, int, int]:
    """The addresses of the arrays of a pass: input or its gradient, weights, output.

    Raises:
        ShapeError: an array does not have the size of the geometry.
    """
    return (
        floats(f"{op}: input", x, math.prod(geom.in_shape)),
        floats(f"{op}: weights", weight, math.prod(geom.weight_shape)),
        floats(f"{op}: output", y, math.prod(geom.out_shape)),
    )
