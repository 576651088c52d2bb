"""Convolution in NumPy: the choice of an algorithm for each geometry."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvOps, ConvPasses, ConvPlan, Epilogue, HostArray
from runtime.backend.conv_empty import EMPTY, EmptyConvolution, is_empty
from runtime.backend.cpu import conv_im2col, conv_winograd
from runtime.backend.cpu.conv_im2col import Im2colConvolution
from runtime.backend.cpu.conv_winograd import WinogradConvolution
from runtime.backend.cpu.lanes import Lanes
from runtime.backend.cpu.memory import NumpyMemory
from runtime.backend.cpu.neurons import NumpyNeurons
from runtime.backend.cpu.products import NumpyProducts

IM2COL = "im2col"
WINOGRAD = "winograd_4x4"
# With fewer input or output channels, the transforms cost more than they save in products.
_FEW_CHANNELS = 16


class NumpyConvolution(ConvOps):
    """ConvOps in NumPy. `exact` selects im2col for all geometries."""

    def __init__(self, lanes: Lanes, dtype: np.dtype[Any], exact: bool) -> None:
        self._itemsize = dtype.itemsize
        self._exact = exact or dtype != np.float32
        self._algorithms: dict[str, ConvPasses] = {
            IM2COL: Im2colConvolution(lanes),
            WINOGRAD: WinogradConvolution(lanes),
            EMPTY: EmptyConvolution(NumpyMemory(lanes), NumpyProducts(lanes), NumpyNeurons(lanes)),
        }

    def plan(self, geom: ConvGeometry) -> ConvPlan:
        if is_empty(geom):
            return ConvPlan(geom, EMPTY, 0, {})
        if self._exact or not geom.is_3x3_same or min(geom.c, geom.k) < _FEW_CHANNELS:
            return ConvPlan(geom, IM2COL, conv_im2col.workspace_bytes(geom, self._itemsize), {})
        return ConvPlan(geom, WINOGRAD, conv_winograd.workspace_bytes(geom), {})

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        epilogue: Epilogue,
        y: HostArray,
        weight_version: int | None,
    ) -> None:
        algorithm = self._algorithms[plan.algorithm]
        algorithm.forward(plan, x, weight, epilogue, y, weight_version)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        self._algorithms[plan.algorithm].backward_data(plan, dy, weight, dx, weight_version)

    def backward_weight(self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray) -> None:
        self._algorithms[plan.algorithm].backward_weight(plan, x, dy, dw)
