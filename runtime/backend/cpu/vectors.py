"""Vectors of any shape: add, scale, sums, and the update of the weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray, VectorOps
from runtime.backend.cpu.lanes import Lane, Runner

# Two or three arrays of this many elements fit in the cache of a core.
_GRAIN = 1 << 15


class NumpyVectors(VectorOps):
    """VectorOps in NumPy."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def axpy(self, alpha: float, x: HostArray, y: HostArray) -> None:
        a, b = x.reshape(-1), y.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            if alpha == 1.0:
                b[start:stop] += a[start:stop]
                return
            scaled = lane.scratch("vector", (stop - start,), b.dtype)
            np.multiply(a[start:stop], alpha, out=scaled)
            b[start:stop] += scaled

        self._runner.run(task, b.size, _GRAIN)

    def scal(self, alpha: float, x: HostArray) -> None:
        flat = x.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            flat[start:stop] *= alpha

        self._runner.run(task, flat.size, _GRAIN)

    def sub(self, x: HostArray, y: HostArray, out: HostArray) -> None:
        np.subtract(x.reshape(-1), y.reshape(-1), out=out.reshape(-1))

    def asum(self, x: HostArray) -> float:
        flat = x.reshape(-1)

        def part(lane: Lane, start: int, stop: int) -> float:
            absolute = lane.scratch("vector", (stop - start,), flat.dtype)
            np.abs(flat[start:stop], out=absolute)
            return float(absolute.sum())

        return self._sum(part, flat.size)

    def sumsq(self, x: HostArray) -> float:
        return self.dot(x, x)

    def dot(self, x: HostArray, y: HostArray) -> float:
        a, b = x.reshape(-1), y.reshape(-1)

        def part(lane: Lane, start: int, stop: int) -> float:
            product = lane.scratch("vector", (stop - start,), a.dtype)
            np.multiply(a[start:stop], b[start:stop], out=product)
            return float(product.sum())

        return self._sum(part, a.size)

    def _sum(self, part: Callable[[Lane, int, int], float], count: int) -> float:
        """Add the parts in order, in float64."""
        parts = [0.0] * ceil_div(count, _GRAIN)

        def task(lane: Lane, start: int, stop: int) -> None:
            parts[start // _GRAIN] = part(lane, start, stop)

        self._runner.run(task, count, _GRAIN)
        return sum(parts)

    def sgd_update(
        self,
        w: HostArray,
        dw: HostArray,
        history: HostArray,
        lr: float,
        momentum: float,
        decay: float,
    ) -> None:
        weight, gradient, past = w.reshape(-1), dw.reshape(-1), history.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            part = slice(start, stop)
            step = lane.scratch("vector", (stop - start,), weight.dtype)
            np.multiply(weight[part], decay, out=step)
            step += gradient[part]
            step *= lr
            past[part] *= momentum
            past[part] += step
            weight[part] -= past[part]

        self._runner.run(task, weight.size, _GRAIN)
