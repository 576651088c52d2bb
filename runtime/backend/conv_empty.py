"""Convolutions of blobs or weights without elements, on every backend.

Their sums have no terms. A Filter layer that selects no sample gives such a batch.
"""

from __future__ import annotations

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import (
    Array,
    ConvPasses,
    ConvPlan,
    Epilogue,
    Layout,
    MemoryOps,
    NeuronOps,
    ProductOps,
)

EMPTY = "empty"
"""The algorithm's name in a plan."""


def is_empty(geom: ConvGeometry) -> bool:
    """Whether a dimension is 0."""
    return 0 in geom.in_shape or 0 in geom.out_shape or 0 in geom.weight_shape


class EmptyConvolution(ConvPasses):
    """Passes without products: all sums are zero, then the epilogue is applied."""

    def __init__(self, memory: MemoryOps, products: ProductOps, neurons: NeuronOps) -> None:
        self._memory = memory
        self._products = products
        self._neurons = neurons

    def workspace_bytes(self, geom: ConvGeometry) -> int:
        """0: no memory is needed. Units: bytes."""
        return 0

    def forward(
        self,
        plan: ConvPlan,
        x: Array,
        weight: Array,
        epilogue: Epilogue,
        y: Array,
        weight_version: int | None,
    ) -> None:
        geom = plan.geometry
        self._memory.fill(y, 0.0)
        if epilogue.bias is not None:
            layout = Layout(geom.n, geom.k, geom.p * geom.q)
            self._products.bias_forward(layout, epilogue.bias, y)
        if epilogue.relu:
            self._neurons.relu_forward(y, y, 0.0)

    def backward_data(
        self, plan: ConvPlan, dy: Array, weight: Array, dx: Array, weight_version: int | None
    ) -> None:
        self._memory.fill(dx, 0.0)

    def backward_weight(self, plan: ConvPlan, x: Array, dy: Array, dw: Array) -> None:
        """Add nothing."""
