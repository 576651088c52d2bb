"""The contract of the element-wise ops. Common rules for ops: see runtime/backend/base.py."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.backend.arrays import Array, Layout


class FunctionKind(enum.IntEnum):
    """Functions of one number, with parameters a, b and c; the numbers are those of the kernels."""

    ABS = 0
    """|x|; slope 0 at 0."""
    CLIP = 1
    """x limited to [a, b]; slope 1 at the limits."""
    THRESHOLD = 2
    """1 where x > a, else 0; slope 0."""
    SIGMOID = 3
    """1 / (1 + exp(-a x))."""
    TANH = 4
    """tanh(x)."""
    ELU = 5
    """x where x > 0, else a (exp(x) - 1)."""
    EXP = 6
    """b exp(a x)."""
    LOG = 7
    """c log(a x + b)."""
    BNLL = 8
    """log(1 + exp(x))."""
    POWER = 9
    """(b x + c) ^ a."""
    CONSTANT = 10
    """a, for every x; slope 0."""
    RELU6 = 11
    """x limited to [0, 6]; slope 0 at the limits."""


@dataclass(frozen=True)
class Function:
    """A function of one number; see FunctionKind for its parameters."""

    kind: FunctionKind
    a: float = 0.0
    b: float = 0.0
    c: float = 0.0


class PointwiseOps(Protocol):
    """Element-wise functions; y may be any input, and dx may be dy. Shapes: any, of equal count."""

    def function_forward(self, function: Function, x: Array, y: Array) -> None:
        """y = f(x)."""

    def function_backward(
        self, function: Function, x: Array, y: Array, dy: Array, dx: Array
    ) -> None:
        """dx = dy * f'(x), with y = f(x).

        SIGMOID, TANH, EXP, ELU and RELU6 give the same if x has been overwritten by y.
        """

    def swish_backward(self, beta: float, gate: Array, y: Array, dy: Array, dx: Array) -> None:
        """dx = dy * (beta y + gate (1 - beta y)), with gate = sigmoid(beta x) and y = x gate."""

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
