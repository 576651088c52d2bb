"""Convolution in numpy: which algorithm computes which geometry, and the way there."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvPlan, HostArray
from runtime.backend.cpu import conv_im2col, conv_winograd
from runtime.backend.cpu.conv_im2col import Im2colConvolution
from runtime.backend.cpu.conv_winograd import WinogradConvolution
from runtime.backend.cpu.lanes import Lanes

IM2COL = "im2col"
WINOGRAD = "winograd_4x4"
# With fewer channels on one side the transforms cost more than the products they save.
_FEW_CHANNELS = 16


class ConvolutionOps:
    """See the section "Convolution" of Backend. `exact` wants every sum taken term by term."""

    def __init__(self, lanes: Lanes, dtype: np.dtype[Any], exact: bool) -> None:
        self._itemsize = dtype.itemsize
        self._exact = exact or dtype != np.float32
        self._algorithms: dict[str, Im2colConvolution | WinogradConvolution] = {
            IM2COL: Im2colConvolution(lanes),
            WINOGRAD: WinogradConvolution(lanes),
        }

    def plan(self, geom: ConvGeometry) -> ConvPlan:
        """See Backend.plan_conv."""
        if self._exact or not geom.is_3x3_same or min(geom.c, geom.k) < _FEW_CHANNELS:
            return ConvPlan(geom, IM2COL, conv_im2col.workspace_bytes(geom, self._itemsize), {})
        return ConvPlan(geom, WINOGRAD, conv_winograd.workspace_bytes(geom), {})

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        bias: HostArray | None,
        y: HostArray,
        weight_version: int | None,
        relu: bool,
    ) -> None:
        """See Backend.conv_forward."""
        algorithm = self._algorithms[plan.algorithm]
        algorithm.forward(plan, x, weight, bias, y, weight_version, relu)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        """See Backend.conv_backward_data."""
        self._algorithms[plan.algorithm].backward_data(plan, dy, weight, dx, weight_version)

    def backward_weight(self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray) -> None:
        """See Backend.conv_backward_weight."""
        self._algorithms[plan.algorithm].backward_weight(plan, x, dy, dw)
