"""Local response normalisation across channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prototxt_gen.geometry import LRNGeometry
from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray, LRNOps
from runtime.backend.cpu.lanes import Lane, Runner

_GRAIN = 1 << 16
_Part = tuple[slice, slice, slice]
_Task = Callable[[Lane, HostArray, _Part], None]


class NumpyLRN(LRNOps):
    """LRNOps in NumPy.

    Windows are summed by shifted additions: a running sum would need less work for wide windows,
    but its subtractions lose precision.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def forward(self, geom: LRNGeometry, x: HostArray, scale: HostArray, y: HostArray) -> None:

        def task(lane: Lane, image: HostArray, part: _Part) -> None:
            square = lane.scratch("lrn.term", image.shape, image.dtype)
            total = lane.scratch("lrn.sum", image.shape, image.dtype)
            np.multiply(image, image, out=square)
            _window_sum(square, total, geom.size, (geom.size - 1) // 2)
            total *= geom.alpha / geom.size
            total += geom.k
            _planes(scale)[part] = total
            power = _negative_power(total, geom.beta, square)
            np.multiply(image, power, out=_planes(y)[part])

        self._run(task, x)

    def backward(
        self,
        geom: LRNGeometry,
        x: HostArray,
        y: HostArray,
        scale: HostArray,
        dy: HostArray,
        dx: HostArray,
    ) -> None:

        def task(lane: Lane, image: HostArray, part: _Part) -> None:
            term = lane.scratch("lrn.term", image.shape, image.dtype)
            total = lane.scratch("lrn.sum", image.shape, image.dtype)
            top, divisor = _planes(dy)[part], _planes(scale)[part]
            np.multiply(top, _planes(y)[part], out=term)
            term /= divisor
            _window_sum(term, total, geom.size, geom.size // 2)
            total *= image
            total *= 2.0 * geom.alpha * geom.beta / geom.size
            np.copyto(term, divisor)
            power = _negative_power(term, geom.beta, lane.scratch("lrn.t", term.shape, term.dtype))
            np.multiply(top, power, out=_planes(dx)[part])
            _planes(dx)[part] -= total

        self._run(task, x)

    def _run(self, task: _Task, x: HostArray) -> None:
        planes = _planes(x)
        n, channels, inner = planes.shape
        width = max(1, min(inner, _GRAIN // max(1, channels)))
        across = ceil_div(inner, width)

        def piece(lane: Lane, start: int, stop: int) -> None:
            image, column = divmod(start, across)
            part = (
                slice(image, image + 1),
                slice(None),
                slice(column * width, (column + 1) * width),
            )
            task(lane, planes[part], part)

        self._runner.run(piece, n * across)


def _planes(x: HostArray) -> HostArray:
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])


def _window_sum(term: HostArray, total: HostArray, size: int, before: int) -> None:
    """total[c] = sum of term[c - before .. c - before + size - 1], zero outside."""
    channels = term.shape[1]
    np.copyto(total, term)
    for shift in range(max(-before, 1 - channels), min(size - before, channels)):
        if shift < 0:
            total[:, -shift:] += term[:, :shift]
        elif shift > 0:
            total[:, :-shift] += term[:, shift:]


def _negative_power(base: HostArray, beta: float, spare: HostArray) -> HostArray:
    """base^-beta, in place of base. The usual exponent 3/4 takes two square roots."""
    if beta == 0.75:
        np.sqrt(base, out=base)
        np.sqrt(base, out=spare)
        base *= spare
        return np.reciprocal(base, out=base)
    return np.power(base, -beta, out=base)
