"""Convolutions of which a blob or the weights have no element, on every backend.

Their sums have no terms. Such a batch is what a Filter layer gives that keeps nothing.
"""

from __future__ import annotations

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import Array, Backend, ConvPlan, Layout

EMPTY = "empty"
"""The algorithm's name in a plan."""


def is_empty(geom: ConvGeometry) -> bool:
    """Whether a dimension is 0."""
    return 0 in geom.in_shape or 0 in geom.out_shape or 0 in geom.weight_shape


class EmptyConvolution:
    """See the section "Convolution" of Backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def plan(self, geom: ConvGeometry) -> ConvPlan:
        """See Backend.plan_conv."""
        return ConvPlan(geom, EMPTY, 0, {})

    def forward(
        self,
        plan: ConvPlan,
        x: Array,
        weight: Array,
        bias: Array | None,
        y: Array,
        weight_version: int | None,
        relu: bool,
    ) -> None:
        """See Backend.conv_forward."""
        geom = plan.geometry
        self._backend.fill(y, 0.0)
        if bias is not None:
            self._backend.bias_forward(Layout(geom.n, geom.k, geom.p * geom.q), bias, y)
        if relu:
            self._backend.relu_forward(y, y, 0.0)

    def backward_data(
        self, plan: ConvPlan, dy: Array, weight: Array, dx: Array, weight_version: int | None
    ) -> None:
        """See Backend.conv_backward_data."""
        self._backend.fill(dx, 0.0)

    def backward_weight(self, plan: ConvPlan, x: Array, dy: Array, dw: Array) -> None:
        """See Backend.conv_backward_weight."""
