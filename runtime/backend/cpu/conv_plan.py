"""Which algorithm computes which convolution on the CPU: a table, never a timing."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvPlan
from runtime.backend.cpu import conv_im2col, conv_winograd

IM2COL = "im2col"
WINOGRAD = "winograd_4x4"
# With fewer channels the transforms cost more than the products they save.
_MIN_CHANNELS = 16


def plan_conv(geom: ConvGeometry, dtype: np.dtype[Any], exact: bool) -> ConvPlan:
    """See Backend.plan_conv."""
    pays = geom.is_3x3_same and min(geom.c, geom.k) >= _MIN_CHANNELS
    if pays and dtype == np.float32 and not exact:
        return ConvPlan(geom, WINOGRAD, conv_winograd.workspace_bytes(geom), {})
    return ConvPlan(geom, IM2COL, conv_im2col.workspace_bytes(geom, dtype.itemsize), {})
