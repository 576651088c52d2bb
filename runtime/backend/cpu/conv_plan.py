"""Which algorithm computes which convolution on the CPU: a table, never a timing."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvPlan
from runtime.backend.cpu import conv_im2col

IM2COL = "im2col"


def plan_conv(geom: ConvGeometry, dtype: np.dtype[Any], exact: bool) -> ConvPlan:
    """See Backend.plan_conv."""
    return ConvPlan(geom, IM2COL, conv_im2col.workspace_bytes(geom, dtype.itemsize), {})
