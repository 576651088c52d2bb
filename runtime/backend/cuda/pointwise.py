"""Functions of the numbers at one place: affine maps, sums, products, maxima, PReLU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtime.backend.base import Function, Layout, PointwiseOps
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import Launcher, expect_same_size, expect_size

_SOURCE, _FUNCTIONS = "pointwise", "functions"


class CudaPointwise(PointwiseOps):
    """PointwiseOps by CUDA kernels."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def function_forward(self, function: Function, x: DeviceArray, y: DeviceArray) -> None:
        f, count = function, expect_same_size("function_forward", x, y)
        args = (x, y, count, int(f.kind), f.a, f.b, f.c)
        self._launcher.elementwise(_FUNCTIONS, "function_forward", count, args)

    def function_backward(
        self,
        function: Function,
        x: DeviceArray,
        y: DeviceArray,
        dy: DeviceArray,
        dx: DeviceArray,
    ) -> None:
        f, count = function, expect_same_size("function_backward", x, y, dy, dx)
        args = (x, y, dy, dx, count, int(f.kind), f.a, f.b, f.c)
        self._launcher.elementwise(_FUNCTIONS, "function_backward", count, args)

    def swish_backward(
        self,
        beta: float,
        gate: DeviceArray,
        y: DeviceArray,
        dy: DeviceArray,
        dx: DeviceArray,
    ) -> None:
        count = expect_same_size("swish_backward", gate, y, dy, dx)
        args = (gate, y, dy, dx, count, beta)
        self._launcher.elementwise(_FUNCTIONS, "swish_backward", count, args)

    def affine(
        self,
        layout: Layout,
        x: DeviceArray,
        centre: DeviceArray | None,
        scale: DeviceArray | None,
        shift: DeviceArray | None,
        relu: bool,
        y: DeviceArray,
    ) -> None:
        parameters = (centre, scale, shift)
        count = _expect_layout("affine", layout, parameters, x, y)
        args = (x, *parameters, y, count, layout.channels, layout.inner, int(relu))
        self._launcher.elementwise(_SOURCE, "affine", count, args)

    def product_sums(
        self, layout: Layout, x: DeviceArray, y: DeviceArray, sums: DeviceArray
    ) -> None:
        self._product_sums("product_sums", layout, x, y, sums, below=False)

    def _product_sums(
        self,
        op: str,
        layout: Layout,
        x: DeviceArray,
        y: DeviceArray,
        sums: DeviceArray,
        *,
        below: bool,
    ) -> None:
        if not _expect_layout(op, layout, (sums,), x, y):
            return
        args = (x, y, sums, layout.outer, layout.channels, layout.inner, int(below))
        self._launcher.run(_SOURCE, "product_sums", layout.channels, args)

    def eltwise_sum(
        self,
        inputs: Sequence[DeviceArray],
        coefficients: Sequence[float],
        relu: bool,
        y: DeviceArray,
    ) -> None:
        count = expect_same_size("eltwise_sum", y, *inputs)
        if len(inputs) == 1:
            args = (inputs[0], y, count, coefficients[0], int(relu))
            self._launcher.elementwise(_SOURCE, "multiple", count, args)
            return

        def add(out: DeviceArray) -> None:
            left, first, last = inputs[0], coefficients[0], len(inputs) - 1
            for i in range(1, len(inputs)):
                rectify = int(relu and i == last)
                pair = (left, inputs[i], out, count, first, coefficients[i], rectify)
                self._launcher.elementwise(_SOURCE, "sum_of_two", count, pair)
                left, first = out, 1.0

        self._to(y, inputs[2:], add)

    def eltwise_product(self, inputs: Sequence[DeviceArray], y: DeviceArray) -> None:
        count = expect_same_size("eltwise_product", y, *inputs)
        if len(inputs) == 1:
            self._launcher.elementwise(_SOURCE, "multiple", count, (inputs[0], y, count, 1.0, 0))
            return

        def multiply(out: DeviceArray) -> None:
            left = inputs[0]
            for x in inputs[1:]:
                args = (left, x, out, count)
                self._launcher.elementwise(_SOURCE, "product_of_two", count, args)
                left = out

        self._to(y, inputs[2:], multiply)

    def eltwise_max(
        self, inputs: Sequence[DeviceArray], y: DeviceArray, winner: DeviceArray
    ) -> None:
        count = expect_same_size("eltwise_max", y, winner, *inputs)

        def choose(out: DeviceArray) -> None:
            for i, x in enumerate(inputs):
                self._launcher.elementwise(_SOURCE, "larger", count, (x, out, winner, count, i))

        self._to(y, inputs[1:], choose)

    def _to(
        self,
        y: DeviceArray,
        later: Sequence[DeviceArray],
        compute: Callable[[DeviceArray], None],
    ) -> None:
        """Compute into y; through scratch memory if y is an input that is read later."""
        if all(x.address != y.address for x in later):
            compute(y)
            return
        (out,) = self._launcher.scratch(y.size)
        compute(out)
        self._launcher.launches += 1
        self._launcher.driver.copy(out.address, y.address, y.nbytes)

    def eltwise_max_backward(
        self, dy: DeviceArray, winner: DeviceArray, index: int, dx: DeviceArray
    ) -> None:
        count = expect_same_size("eltwise_max_backward", dy, winner, dx)
        args = (dy, winner, dx, count, index)
        self._launcher.elementwise(_SOURCE, "max_backward", count, args)

    def prelu_forward(
        self, layout: Layout, x: DeviceArray, slope: DeviceArray, y: DeviceArray
    ) -> None:
        self.prelu_backward(layout, x, x, slope, y)

    def prelu_backward(
        self,
        layout: Layout,
        x: DeviceArray,
        dy: DeviceArray,
        slope: DeviceArray,
        dx: DeviceArray,
    ) -> None:
        count = _expect_layout("prelu", layout, (slope,), x, dy, dx)
        args = (x, dy, slope, dx, count, layout.channels, layout.inner)
        self._launcher.elementwise(_SOURCE, "prelu", count, args)

    def prelu_backward_slope(
        self, layout: Layout, x: DeviceArray, dy: DeviceArray, dslope: DeviceArray
    ) -> None:
        self._product_sums("prelu_backward_slope", layout, x, dy, dslope, below=True)


def _expect_layout(
    op: str,
    layout: Layout,
    parameters: Sequence[DeviceArray | None],
    *arrays: DeviceArray,
) -> int:
    """The number of elements of arrays in this layout.

    Raises:
        ShapeError: an array or a parameter has another size.
    """
    for array in arrays:
        expect_size(op, array, (layout.outer, layout.channels, layout.inner))
    for values in parameters:
        if values is not None:
            expect_size(op, values, (layout.channels,))
    return arrays[0].size
