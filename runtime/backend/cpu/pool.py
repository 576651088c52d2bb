"""Max and average pooling: one pass over the planes for each position in the window."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from prototxt_gen.geometry import PoolGeometry
from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray, PoolOps
from runtime.backend.cpu.lanes import Lane, Runner

# Input elements of one piece, which fit in the cache of a core.
_PIECE = 1 << 16
_LOWEST = -float(np.finfo(np.float32).max)
_BOOL = np.dtype(np.bool_)


class NumpyPool(PoolOps):
    """PoolOps in NumPy."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def max_forward(self, geom: PoolGeometry, x: HostArray, y: HostArray, mask: HostArray) -> None:
        # As in Caffe, only elements > -FLT_MAX can be the maximum, so NaN cannot.
        planes, best, sources = _planes(x), _planes(y), _planes(mask)
        window, origin = _positions(geom), _origins(geom)
        steps = _steps(geom, window)
        number = np.dtype(np.uint8 if len(steps) <= 256 else np.int32)

        def task(lane: Lane, start: int, stop: int) -> None:
            top, target = best[start:stop], sources[start:stop]
            winner = lane.scratch("pool.winner", top.shape, number)
            top[...] = _LOWEST
            winner[...] = 0
            for position in window:
                _update_maxima(lane, planes[start:stop], top, winner, position)
            np.take(steps, winner, out=target, mode="clip")
            target += origin
            if not winner.all():
                target[winner == 0] = -1

        self._runner.run(task, len(planes), _grain(geom))

    def max_backward(
        self, geom: PoolGeometry, dy: HostArray, mask: HostArray, dx: HostArray
    ) -> None:
        top, sources, bottom = _planes(dy), _planes(mask), _planes(dx)
        plane = geom.h * geom.w
        overlapping = geom.stride[0] < geom.kernel[0] or geom.stride[1] < geom.kernel[1]

        def task(lane: Lane, start: int, stop: int) -> None:
            bottom[start:stop] = 0.0
            gradient, source = top[start:stop].reshape(-1), sources[start:stop]
            if not gradient.size:
                return
            index = lane.scratch("pool.index", source.shape, np.dtype(np.intp))
            np.add(source, np.arange(stop - start)[:, None, None] * plane, out=index)
            flat = index.reshape(-1)
            if source.min() < 0:
                valid = source.reshape(-1) >= 0
                flat, gradient = flat[valid], gradient[valid]
            spread = bottom[start:stop].reshape(-1)
            if overlapping:
                np.add.at(spread, flat, gradient)
            else:
                spread[flat] = gradient

        self._runner.run(task, len(top), _grain(geom))

    def ave_forward(self, geom: PoolGeometry, x: HostArray, y: HostArray) -> None:
        planes, mean = _planes(x), _planes(y)
        window, divisor = _positions(geom), _divisors(geom, x.dtype)

        def task(lane: Lane, start: int, stop: int) -> None:
            total = mean[start:stop]
            total[...] = 0.0
            for position in window:
                total[:, position.outputs[0], position.outputs[1]] += planes[
                    start:stop, position.inside[0], position.inside[1]
                ]
            total /= divisor

        self._runner.run(task, len(planes), _grain(geom))

    def ave_backward(self, geom: PoolGeometry, dy: HostArray, dx: HostArray) -> None:
        top, bottom = _planes(dy), _planes(dx)
        window, divisor = _positions(geom)[::-1], _divisors(geom, dy.dtype)

        def task(lane: Lane, start: int, stop: int) -> None:
            share = lane.scratch("pool.share", top[start:stop].shape, top.dtype)
            np.divide(top[start:stop], divisor, out=share)
            part = bottom[start:stop]
            part[...] = 0.0
            for position in window:
                part[:, position.inside[0], position.inside[1]] += share[
                    :, position.outputs[0], position.outputs[1]
                ]

        self._runner.run(task, len(top), _grain(geom))


def _update_maxima(
    lane: Lane, x: HostArray, top: HostArray, winner: HostArray, position: Position
) -> None:
    """Update the maxima `top` with the elements at one position of the windows.

    `winner` is the number of the position of the maximum plus 1. Positions are processed in
    row-major order, so the latest one has the largest number.
    """
    value = lane.scratch("pool.value", top.shape, top.dtype)
    inside = x[:, position.inside[0], position.inside[1]]
    if inside.shape != top.shape:
        value[...] = np.nan  # not greater than any number, and ignored by fmax
    np.copyto(value[:, position.outputs[0], position.outputs[1]], inside)
    greater = lane.scratch("pool.greater", top.shape, _BOOL)
    np.greater(value, top, out=greater)
    np.fmax(value, top, out=top)
    claim = lane.scratch("pool.claim", top.shape, winner.dtype)
    np.multiply(greater.view(np.uint8), winner.dtype.type(position.number + 1), out=claim)
    np.maximum(winner, claim, out=winner)


def _planes(x: HostArray) -> HostArray:
    """(N,C,H,W) as planes (N*C,H,W)."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _grain(geom: PoolGeometry) -> int:
    return max(1, _PIECE // max(1, geom.h * geom.w))


def _origins(geom: PoolGeometry) -> HostArray:
    """Flat index, in the plane, of the first position of each window, possibly in the padding.

    Shapes: (P,Q).
    """
    rows = np.arange(geom.p) * geom.stride[0] - geom.pad[0]
    cols = np.arange(geom.q) * geom.stride[1] - geom.pad[1]
    return (rows[:, None] * geom.w + cols).astype(np.int32)


def _steps(geom: PoolGeometry, window: Sequence[Position]) -> HostArray:
    """Element n is the flat distance of position n - 1 from the first; element 0 is for no winner.

    Shapes: (positions + 1,).
    """
    # Distances may overflow with large padding; adding the origin reverses the overflow.
    return np.array([0, *(p.r * geom.w + p.s for p in window)], np.int64).astype(np.int32)


def _divisors(geom: PoolGeometry, dtype: np.dtype[np.generic]) -> HostArray:
    """Elements of each window after clipping it to the padded input. Caffe: pool_size.

    A window may be entirely outside (if kernel < stride); its mean is 0, in Caffe 0 / 0.

    Shapes: (P,Q).
    """

    def along(size: int, outputs: int, axis: int) -> HostArray:
        start = np.arange(outputs) * geom.stride[axis] - geom.pad[axis]
        end = np.minimum(start + geom.kernel[axis], size + geom.pad[axis])
        return np.maximum(end - start, 1)

    return np.outer(along(geom.h, geom.p, 0), along(geom.w, geom.q, 1)).astype(dtype)


@dataclass(frozen=True)
class Position:
    """A position (r, s) in the window, and the outputs for which it is inside the input."""

    number: int
    """From 0, in row-major order of the positions that are inside the input for some output."""
    r: int
    s: int
    inside: tuple[slice, slice]
    """Rows and columns of the input at this position, one for each of `outputs`."""
    outputs: tuple[slice, slice]


def _positions(geom: PoolGeometry) -> list[Position]:
    """The positions in the window in row-major order, without those always in the padding."""
    pairs = itertools.product(_offsets(geom, 0), _offsets(geom, 1))
    return [
        Position(number, r, s, (rows[0], cols[0]), (rows[1], cols[1]))
        for number, ((r, rows), (s, cols)) in enumerate(pairs)
    ]


def _offsets(geom: PoolGeometry, axis: int) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """The offsets in the window, along one axis, that are inside the input for some output."""
    size, outputs = ((geom.h, geom.p), (geom.w, geom.q))[axis]
    stride, pad, kernel = geom.stride[axis], geom.pad[axis], geom.kernel[axis]
    # Windows may be much larger than the input, with large padding or stride.
    starts = [pad - output * stride for output in range(outputs)][::-1]
    if stride <= size:
        starts, span = starts[:1], starts[-1] + size - starts[0]
    else:
        span = size
    for start in starts:
        for offset in range(max(start, 0), min(start + span, kernel)):
            slices = _along(size, outputs, offset, stride, pad)
            if slices is not None:
                yield offset, slices


def _along(
    size: int, outputs: int, offset: int, stride: int, pad: int
) -> tuple[slice, slice] | None:
    """Along one axis: the inputs at `offset` in the windows, and the outputs of these windows."""
    first = max(0, ceil_div(pad - offset, stride))
    last = min(outputs - 1, (size - 1 + pad - offset) // stride)
    if first > last:
        return None
    start = first * stride - pad + offset
    return slice(start, start + (last - first) * stride + 1, stride), slice(first, last + 1)
