"""Max and average pooling: one pass over the planes for each place of the window."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from prototxt_gen.geometry import PoolGeometry
from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray, PoolOps
from runtime.backend.cpu.lanes import Lane, Runner

# Elements of input that one piece of pooling work reads: they stay in a core's cache.
_PIECE = 1 << 16
_LOWEST = -float(np.finfo(np.float32).max)
_BOOL = np.dtype(np.bool_)


class NumpyPool(PoolOps):
    """PoolOps in numpy."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def max_forward(self, geom: PoolGeometry, x: HostArray, y: HostArray, mask: HostArray) -> None:
        # Caffe: a strict `>` against -FLT_MAX, which is false for NaN.
        planes, best, where = _planes(x), _planes(y), _planes(mask)
        window, origin = _places(geom), _origins(geom)
        steps = _steps(geom, window)
        number = np.dtype(np.uint8 if len(steps) <= 256 else np.int32)

        def task(lane: Lane, start: int, stop: int) -> None:
            top, target = best[start:stop], where[start:stop]
            winner = lane.scratch("pool.winner", top.shape, number)
            top[...] = _LOWEST
            winner[...] = 0
            for place in window:
                _challenge(lane, planes[start:stop], top, winner, place)
            np.take(steps, winner, out=target, mode="clip")
            target += origin
            if not winner.all():
                target[winner == 0] = -1

        self._runner.run(task, len(planes), _grain(geom))

    def max_backward(
        self, geom: PoolGeometry, dy: HostArray, mask: HostArray, dx: HostArray
    ) -> None:
        top, where, bottom = _planes(dy), _planes(mask), _planes(dx)
        plane = geom.h * geom.w
        overlapping = geom.stride[0] < geom.kernel[0] or geom.stride[1] < geom.kernel[1]

        def task(lane: Lane, start: int, stop: int) -> None:
            bottom[start:stop] = 0.0
            gradient, at = top[start:stop].reshape(-1), where[start:stop]
            if not gradient.size:
                return
            index = lane.scratch("pool.index", at.shape, np.dtype(np.intp))
            np.add(at, np.arange(stop - start)[:, None, None] * plane, out=index)
            flat = index.reshape(-1)
            if at.min() < 0:
                won = at.reshape(-1) >= 0
                flat, gradient = flat[won], gradient[won]
            spread = bottom[start:stop].reshape(-1)
            if overlapping:
                np.add.at(spread, flat, gradient)
            else:
                spread[flat] = gradient

        self._runner.run(task, len(top), _grain(geom))

    def ave_forward(self, geom: PoolGeometry, x: HostArray, y: HostArray) -> None:
        planes, mean = _planes(x), _planes(y)
        window, divisor = _places(geom), _divisors(geom, x.dtype)

        def task(lane: Lane, start: int, stop: int) -> None:
            total = mean[start:stop]
            total[...] = 0.0
            for place in window:
                total[:, place.outputs[0], place.outputs[1]] += planes[
                    start:stop, place.inside[0], place.inside[1]
                ]
            total /= divisor

        self._runner.run(task, len(planes), _grain(geom))

    def ave_backward(self, geom: PoolGeometry, dy: HostArray, dx: HostArray) -> None:
        top, bottom = _planes(dy), _planes(dx)
        window, divisor = _places(geom)[::-1], _divisors(geom, dy.dtype)

        def task(lane: Lane, start: int, stop: int) -> None:
            share = lane.scratch("pool.share", top[start:stop].shape, top.dtype)
            np.divide(top[start:stop], divisor, out=share)
            part = bottom[start:stop]
            part[...] = 0.0
            for place in window:
                part[:, place.inside[0], place.inside[1]] += share[
                    :, place.outputs[0], place.outputs[1]
                ]

        self._runner.run(task, len(top), _grain(geom))


def _challenge(lane: Lane, x: HostArray, top: HostArray, winner: HostArray, place: Place) -> None:
    """Let the elements at one place of the windows win where they are greater.

    Winners are numbered from 1 in row-major order, so the newest winner has the largest number.
    """
    value = lane.scratch("pool.value", top.shape, top.dtype)
    inside = x[:, place.inside[0], place.inside[1]]
    if inside.shape != top.shape:
        value[...] = np.nan  # beats nothing, and nothing minds it
    np.copyto(value[:, place.outputs[0], place.outputs[1]], inside)
    greater = lane.scratch("pool.greater", top.shape, _BOOL)
    np.greater(value, top, out=greater)
    np.fmax(value, top, out=top)
    claim = lane.scratch("pool.claim", top.shape, winner.dtype)
    np.multiply(greater.view(np.uint8), winner.dtype.type(place.number + 1), out=claim)
    np.maximum(winner, claim, out=winner)


def _planes(x: HostArray) -> HostArray:
    """(N,C,H,W) as planes (N*C,H,W)."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _grain(geom: PoolGeometry) -> int:
    return max(1, _PIECE // max(1, geom.h * geom.w))


def _origins(geom: PoolGeometry) -> HostArray:
    """Flat index, in the plane, of each window's first place; it may lie in the padding."""
    rows = np.arange(geom.p) * geom.stride[0] - geom.pad[0]
    cols = np.arange(geom.q) * geom.stride[1] - geom.pad[1]
    return (rows[:, None] * geom.w + cols).astype(np.int32)


def _steps(geom: PoolGeometry, window: Sequence[Place]) -> HostArray:
    """Flat distance of place n - 1 from the window's first place, at n; 0 stands for no winner."""
    # A distance from far in the padding wraps, and wraps back when the origin is added.
    return np.array([0, *(p.r * geom.w + p.s for p in window)], np.int64).astype(np.int32)


def _divisors(geom: PoolGeometry, dtype: np.dtype[np.generic]) -> HostArray:
    """Elements of each window after clipping it to the padded input. Caffe: pool_size.

    A window may lie wholly outside (kernel below stride); its mean is 0, where Caffe has 0 / 0.
    """

    def along(size: int, outputs: int, axis: int) -> HostArray:
        start = np.arange(outputs) * geom.stride[axis] - geom.pad[axis]
        end = np.minimum(start + geom.kernel[axis], size + geom.pad[axis])
        return np.maximum(end - start, 1)

    return np.outer(along(geom.h, geom.p, 0), along(geom.w, geom.q, 1)).astype(dtype)


@dataclass(frozen=True)
class Place:
    """One place (r, s) of the window, for the outputs whose window has it inside the input."""

    number: int
    """From 0, in row-major order of those that see an input."""
    r: int
    s: int
    inside: tuple[slice, slice]
    """Rows and columns of the input that lie at this place, one for each of `outputs`."""
    outputs: tuple[slice, slice]


def _places(geom: PoolGeometry) -> list[Place]:
    """All places of the window in row-major order; those that see only padding are left out."""
    found = itertools.product(_seen(geom, 0), _seen(geom, 1))
    return [
        Place(number, r, s, (rows[0], cols[0]), (rows[1], cols[1]))
        for number, ((r, rows), (s, cols)) in enumerate(found)
    ]


def _seen(geom: PoolGeometry, axis: int) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """The offsets within the window, along one axis, that some output has inside the input."""
    size, outputs = ((geom.h, geom.p), (geom.w, geom.q))[axis]
    stride, pad, kernel = geom.stride[axis], geom.pad[axis], geom.kernel[axis]
    # A window may be far larger than the input, where the padding or the stride is.
    starts = [pad - output * stride for output in range(outputs)][::-1]
    if stride <= size:
        starts, size_seen = starts[:1], starts[-1] + size - starts[0]
    else:
        size_seen = size
    for start in starts:
        for offset in range(max(start, 0), min(start + size_seen, kernel)):
            slices = _along(size, outputs, offset, stride, pad)
            if slices is not None:
                yield offset, slices


def _along(
    size: int, outputs: int, offset: int, stride: int, pad: int
) -> tuple[slice, slice] | None:
    """Along one axis: the inputs seen at `offset` of the window, and the outputs that see them."""
    first = max(0, ceil_div(pad - offset, stride))
    last = min(outputs - 1, (size - 1 + pad - offset) // stride)
    if first > last:
        return None
    start = first * stride - pad + offset
    return slice(start, start + (last - first) * stride + 1, stride), slice(first, last + 1)
