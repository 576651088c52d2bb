"""Groups of ops whose results are rounded to bf16: the maps of a net and their gradients.

The ops compute in float32 by another group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prototxt_gen.geometry import LRNGeometry, PoolGeometry
from runtime.backend.base import (
    Array,
    Draw,
    Function,
    Layout,
    LRNOps,
    NeuronOps,
    PointwiseOps,
    PoolOps,
)

Round = Callable[[Array], None]
"""Rounds a map in place. Shapes: any."""


class RoundedNeurons(NeuronOps):
    """NeuronOps with rounded results."""

    def __init__(self, ops: NeuronOps, round_map: Round) -> None:
        self._ops, self._round = ops, round_map

    def relu_forward(self, x: Array, y: Array, negative_slope: float) -> None:
        self._ops.relu_forward(x, y, negative_slope)
        self._round(y)

    def relu_backward(self, x: Array, dy: Array, dx: Array, negative_slope: float) -> None:
        self._ops.relu_backward(x, dy, dx, negative_slope)
        self._round(dx)

    def dropout_forward(self, x: Array, y: Array, mask: Array, ratio: float, draw: Draw) -> None:
        self._ops.dropout_forward(x, y, mask, ratio, draw)
        self._round(y)

    def dropout_backward(self, dy: Array, mask: Array, dx: Array, ratio: float) -> None:
        self._ops.dropout_backward(dy, mask, dx, ratio)
        self._round(dx)


class RoundedPointwise(PointwiseOps):
    """PointwiseOps with rounded maps; sums over a map remain float32."""

    def __init__(self, ops: PointwiseOps, round_map: Round) -> None:
        self._ops, self._round = ops, round_map

    def affine(
        self,
        layout: Layout,
        x: Array,
        centre: Array | None,
        scale: Array | None,
        shift: Array | None,
        relu: bool,
        y: Array,
    ) -> None:
        self._ops.affine(layout, x, centre, scale, shift, relu, y)
        self._round(y)

    def product_sums(self, layout: Layout, x: Array, y: Array, sums: Array) -> None:
        self._ops.product_sums(layout, x, y, sums)

    def eltwise_sum(
        self, inputs: Sequence[Array], coefficients: Sequence[float], relu: bool, y: Array
    ) -> None:
        self._ops.eltwise_sum(inputs, coefficients, relu, y)
        self._round(y)

    def eltwise_product(self, inputs: Sequence[Array], y: Array) -> None:
        self._ops.eltwise_product(inputs, y)
        self._round(y)

    def eltwise_max(self, inputs: Sequence[Array], y: Array, winner: Array) -> None:
        self._ops.eltwise_max(inputs, y, winner)
        self._round(y)

    def eltwise_max_backward(self, dy: Array, winner: Array, index: int, dx: Array) -> None:
        self._ops.eltwise_max_backward(dy, winner, index, dx)
        self._round(dx)

    def prelu_forward(self, layout: Layout, x: Array, slope: Array, y: Array) -> None:
        self._ops.prelu_forward(layout, x, slope, y)
        self._round(y)

    def prelu_backward(self, layout: Layout, x: Array, dy: Array, slope: Array, dx: Array) -> None:
        self._ops.prelu_backward(layout, x, dy, slope, dx)
        self._round(dx)

    def prelu_backward_slope(self, layout: Layout, x: Array, dy: Array, dslope: Array) -> None:
        self._ops.prelu_backward_slope(layout, x, dy, dslope)

    def function_forward(self, function: Function, x: Array, y: Array) -> None:
        self._ops.function_forward(function, x, y)
        self._round(y)

    def function_backward(
        self, function: Function, x: Array, y: Array, dy: Array, dx: Array
    ) -> None:
        self._ops.function_backward(function, x, y, dy, dx)
        self._round(dx)

    def swish_backward(self, beta: float, gate: Array, y: Array, dy: Array, dx: Array) -> None:
        self._ops.swish_backward(beta, gate, y, dy, dx)
        self._round(dx)


class RoundedPool(PoolOps):
    """PoolOps with rounded results.

    A maximum is an element of the map, or -FLT_MAX, which must not become -infinity.
    """

    def __init__(self, ops: PoolOps, round_map: Round) -> None:
        self._ops, self._round = ops, round_map

    def max_forward(self, geom: PoolGeometry, x: Array, y: Array, mask: Array) -> None:
        self._ops.max_forward(geom, x, y, mask)

    def max_backward(self, geom: PoolGeometry, dy: Array, mask: Array, dx: Array) -> None:
        self._ops.max_backward(geom, dy, mask, dx)
        self._round(dx)

    def ave_forward(self, geom: PoolGeometry, x: Array, y: Array) -> None:
        self._ops.ave_forward(geom, x, y)
        self._round(y)

    def ave_backward(self, geom: PoolGeometry, dy: Array, dx: Array) -> None:
        self._ops.ave_backward(geom, dy, dx)
        self._round(dx)


class RoundedLRN(LRNOps):
    """LRNOps with rounded maps; the scale remains float32."""

    def __init__(self, ops: LRNOps, round_map: Round) -> None:
        self._ops, self._round = ops, round_map

    def forward(self, geom: LRNGeometry, x: Array, scale: Array, y: Array) -> None:
        self._ops.forward(geom, x, scale, y)
        self._round(y)

    def backward(
        self, geom: LRNGeometry, x: Array, y: Array, scale: Array, dy: Array, dx: Array
    ) -> None:
        self._ops.backward(geom, x, y, scale, dy, dx)
        self._round(dx)
