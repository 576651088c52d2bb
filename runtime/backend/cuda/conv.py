"""Convolution: selects the algorithm of a geometry, and checks the arrays of each call."""

from __future__ import annotations

from typing import Protocol

from prototxt_gen.geometry import ConvGeometry
from prototxt_gen.integers import ceil_div
from prototxt_gen.sidecar import FP32
from runtime.backend.base import ConvOps, ConvPasses, ConvPlan, Epilogue
from runtime.backend.conv_empty import EMPTY, EmptyConvolution, is_empty
from runtime.backend.cuda import conv_tensor
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.conv_implicit import ImplicitConvolution
from runtime.backend.cuda.conv_pack import PRECISIONS
from runtime.backend.cuda.conv_tensor import TensorConvolution
from runtime.backend.cuda.conv_winograd import WinogradConvolution
from runtime.backend.cuda.known_answers import next_rung
from runtime.backend.cuda.launcher import Launcher, expect_size
from runtime.backend.cuda.products import CudaProducts

IMPLICIT = "implicit_gemm"
WINOGRAD = {2: "winograd_2x2", 4: "winograd_4x4"}
# With fewer input or output channels the transforms take more time than they save.
_FEW_CHANNELS = 32


class Algorithm(ConvPasses, Protocol):
    """The passes of a convolution, and the memory they need."""

    def workspace_bytes(self, geom: ConvGeometry) -> int:
        """The workspace of the pass that needs most."""


class CudaConvolution(ConvOps):
    """ConvOps by CUDA kernels: checks the arrays and calls the algorithm of the plan.

    Operands are rounded to `precision` where tensor cores are used; `exact` selects only
    algorithms that add the products of a sum term by term.
    """

    def __init__(
        self,
        launcher: Launcher,
        products: CudaProducts,
        empty: EmptyConvolution,
        precision: str,
        exact: bool,
    ) -> None:
        self._precision, self._exact = precision, exact
        self._launcher = launcher
        self._algorithms: dict[str, Algorithm] = {
            EMPTY: empty,
            IMPLICIT: ImplicitConvolution(launcher, products),
        }
        for tile, name in WINOGRAD.items():
            self._algorithms[name] = WinogradConvolution(launcher, products, tile)
        for name, kind in PRECISIONS.items():
            self._algorithms[tensor_name(name)] = TensorConvolution(launcher, kind)

    def plan(self, geom: ConvGeometry) -> ConvPlan:
        name = choose_algorithm(geom, self._precision, self._exact)
        while name not in (EMPTY, IMPLICIT) and not self._launcher.usable(name):
            name = next_rung(name) or IMPLICIT
        return ConvPlan(geom, name, self._algorithms[name].workspace_bytes(geom), {})

    def forward(
        self,
        plan: ConvPlan,
        x: DeviceArray,
        weight: DeviceArray,
        epilogue: Epilogue,
        y: DeviceArray,
        weight_version: int | None,
    ) -> None:
        _expect("conv_forward", plan.geometry, x, weight, y)
        if epilogue.bias is not None:
            expect_size("conv_forward: bias", epilogue.bias, (plan.geometry.k,))
        algorithm = self._algorithms[plan.algorithm]
        algorithm.forward(plan, x, weight, epilogue, y, weight_version)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: DeviceArray,
        weight: DeviceArray,
        dx: DeviceArray,
        weight_version: int | None,
    ) -> None:
        _expect("conv_backward_data", plan.geometry, dx, weight, dy)
        self._algorithms[plan.algorithm].backward_data(plan, dy, weight, dx, weight_version)

    def backward_weight(
        self, plan: ConvPlan, x: DeviceArray, dy: DeviceArray, dw: DeviceArray
    ) -> None:
        _expect("conv_backward_weight", plan.geometry, x, dw, dy)
        self._algorithms[plan.algorithm].backward_weight(plan, x, dy, dw)


def tensor_name(precision: str) -> str:
    """The name of the algorithm that runs on tensor cores in this precision."""
    return f"tensor_{precision}"


def choose_algorithm(geom: ConvGeometry, precision: str = FP32, exact: bool = False) -> str:
    """Select the algorithm of a convolution, by its geometry alone.

    A precision other than fp32 selects tensor cores where they support the geometry. Otherwise it
    is the algorithm with the fewest multiplications, if there are enough channels.
    """
    if is_empty(geom):
        return EMPTY
    if precision != FP32 and conv_tensor.serves(geom):
        return tensor_name(precision)
    if exact or not geom.is_3x3_same or min(geom.c, geom.k) < _FEW_CHANNELS:
        return IMPLICIT
    multiplications = {IMPLICIT: 9 * geom.p * geom.q}
    for tile, name in WINOGRAD.items():
        tiles = ceil_div(geom.p, tile) * ceil_div(geom.q, tile)
        multiplications[name] = (tile + 2) ** 2 * tiles
    return min(multiplications, key=lambda name: multiplications[name])


def _expect(
    op: str, geom: ConvGeometry, x: DeviceArray, weight: DeviceArray, y: DeviceArray
) -> None:
    expect_size(f"{op}: input", x, geom.in_shape)
    expect_size(f"{op}: weights", weight, geom.weight_shape)
    expect_size(f"{op}: output", y, geom.out_shape)
