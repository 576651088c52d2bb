"""Functions of the numbers at one place: affine maps, sums, products, maxima, PReLU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.integers import ceil_div
from runtime.backend.base import Function, HostArray, Layout, PointwiseOps
from runtime.backend.cpu.functions import slope, value
from runtime.backend.cpu.lanes import Lane, Runner

_GRAIN = 1 << 15


def _rows(layout: Layout, x: HostArray) -> HostArray:
    return x.reshape(layout.outer, layout.channels, layout.inner)


class NumpyPointwise(PointwiseOps):
    """PointwiseOps in NumPy."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def function_forward(self, function: Function, x: HostArray, y: HostArray) -> None:
        source, target = x.reshape(-1), y.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            target[start:stop] = value(function, source[start:stop])

        self._runner.run(task, source.size, _GRAIN)

    def function_backward(
        self, function: Function, x: HostArray, y: HostArray, dy: HostArray, dx: HostArray
    ) -> None:
        source, result, top, bottom = (array.reshape(-1) for array in (x, y, dy, dx))

        def task(lane: Lane, start: int, stop: int) -> None:
            part = slice(start, stop)
            bottom[part] = top[part] * slope(function, source[part], result[part])

        self._runner.run(task, source.size, _GRAIN)

    def swish_backward(
        self, beta: float, gate: HostArray, y: HostArray, dy: HostArray, dx: HostArray
    ) -> None:
        dx[...] = dy * (beta * y + gate * (1 - beta * y))

    def affine(
        self,
        layout: Layout,
        x: HostArray,
        centre: HostArray | None,
        scale: HostArray | None,
        shift: HostArray | None,
        relu: bool,
        y: HostArray,
    ) -> None:
        source, target = _rows(layout, x), _rows(layout, y)

        def task(lane: Lane, start: int, stop: int) -> None:
            value, out = source[start:stop], target[start:stop]
            for operation, values in (
                (np.subtract, centre),
                (np.multiply, scale),
                (np.add, shift),
            ):
                if values is not None:
                    operation(value, values.reshape(-1, 1), out=out)
                    value = out
            if value is not out:
                np.copyto(out, value)
            if relu:
                np.maximum(out, 0, out=out)

        self._runner.run(task, layout.outer, _outer_grain(layout))

    def product_sums(self, layout: Layout, x: HostArray, y: HostArray, sums: HostArray) -> None:
        products = _rows(layout, x) * _rows(layout, y)
        sums.reshape(-1)[...] += products.sum(axis=2).sum(axis=0)

    def eltwise_sum(
        self,
        inputs: Sequence[HostArray],
        coefficients: Sequence[float],
        relu: bool,
        y: HostArray,
    ) -> None:
        flat, target = [x.reshape(-1) for x in inputs], y.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            total = flat[0][start:stop] * coefficients[0]
            for x, coefficient in zip(flat[1:], coefficients[1:]):
                total += x[start:stop] * coefficient
            np.maximum(total, 0, out=target[start:stop]) if relu else np.copyto(
                target[start:stop], total
            )

        self._runner.run(task, target.size, _GRAIN)

    def eltwise_product(self, inputs: Sequence[HostArray], y: HostArray) -> None:
        flat, target = [x.reshape(-1) for x in inputs], y.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            product = flat[0][start:stop].copy()
            for x in flat[1:]:
                product *= x[start:stop]
            target[start:stop] = product

        self._runner.run(task, target.size, _GRAIN)

    def eltwise_max(self, inputs: Sequence[HostArray], y: HostArray, winner: HostArray) -> None:
        flat, target, indices = [x.reshape(-1) for x in inputs], y.reshape(-1), winner.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            parts = [x[start:stop] for x in flat]
            best, index = parts[0].copy(), np.zeros(stop - start, np.int32)
            for i, part in enumerate(parts[1:], start=1):
                better = ~(best > part) if i == 1 else part > best
                index[better] = i
                best[better] = part[better]
            target[start:stop] = best
            indices[start:stop] = index

        self._runner.run(task, target.size, _GRAIN)

    def eltwise_max_backward(
        self, dy: HostArray, winner: HostArray, index: int, dx: HostArray
    ) -> None:
        dx.reshape(-1)[...] = np.where(winner.reshape(-1) == index, dy.reshape(-1), 0)

    def prelu_forward(self, layout: Layout, x: HostArray, slope: HostArray, y: HostArray) -> None:
        self.prelu_backward(layout, x, x, slope, y)

    def prelu_backward(
        self, layout: Layout, x: HostArray, dy: HostArray, slope: HostArray, dx: HostArray
    ) -> None:
        source, top, target = (_rows(layout, a) for a in (x, dy, dx))
        factors = slope.reshape(-1, 1)

        def task(lane: Lane, start: int, stop: int) -> None:
            part = top[start:stop]
            target[start:stop] = np.where(source[start:stop] > 0, part, part * factors)

        self._runner.run(task, layout.outer, _outer_grain(layout))

    def prelu_backward_slope(
        self, layout: Layout, x: HostArray, dy: HostArray, dslope: HostArray
    ) -> None:
        self.product_sums(layout, np.minimum(x, 0), dy, dslope)


def _outer_grain(layout: Layout) -> int:
    return ceil_div(_GRAIN, max(1, layout.channels * layout.inner))
