"""The contract of the element-wise ops. Common rules for ops: see runtime/backend/base.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.backend.arrays import Array, Layout


class PointwiseOps(Protocol):
    """Element-wise functions; y may be any input, and dx may be dy. Shapes: any, of equal count."""

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
        """y = (x - centre) * scale + shift along channels, then max(., 0) if `relu`.

        Shapes: centre, scale, shift (channels,); None omits the operation.
        """

    def product_sums(self, layout: Layout, x: Array, y: Array, sums: Array) -> None:
        """sums += sum of x * y over outer and inner: accumulates. Shapes: sums (channels,)."""

    def eltwise_sum(
        self, inputs: Sequence[Array], coefficients: Sequence[float], relu: bool, y: Array
    ) -> None:
        """y = the sum of coefficient * input, in order, then max(., 0) if `relu`."""

    def eltwise_product(self, inputs: Sequence[Array], y: Array) -> None:
        """y = the product of the inputs, in order."""

    def eltwise_max(self, inputs: Sequence[Array], y: Array, winner: Array) -> None:
        """y = the largest input; winner = its index.

        Of the first two inputs, the second is taken unless the first is larger; a later one is
        taken if it is larger than those before it, as in Caffe. Shapes: winner int32, as y.
        """

    def eltwise_max_backward(self, dy: Array, winner: Array, index: int, dx: Array) -> None:
        """dx = dy where winner is `index`, else 0."""

    def prelu_forward(self, layout: Layout, x: Array, slope: Array, y: Array) -> None:
        """y = x where x > 0, else slope * x. Shapes: slope (channels,)."""

    def prelu_backward(self, layout: Layout, x: Array, dy: Array, slope: Array, dx: Array) -> None:
        """dx = dy where x > 0, else slope * dy."""

    def prelu_backward_slope(self, layout: Layout, x: Array, dy: Array, dslope: Array) -> None:
        """dslope += sum of dy * min(x, 0) over outer and inner: accumulates."""
