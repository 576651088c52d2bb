"""Copies between blobs whose axes have other strides: windows, transpositions, repetitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.lib.stride_tricks import as_strided

from runtime.backend.base import Backend, HostArray
from runtime.core.synced_memory import SyncedMemory

_KERNEL_AXES = 6
"""AXES of strided.cu."""


@dataclass(frozen=True)
class Strides:
    """The places of elements in a flat array: first + the sum of index * step. Units: elements."""

    first: int
    steps: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[int]) -> Strides:
        """Those of a dense array of this shape."""
        return cls(0, tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape))))

    def window(self, starts: Sequence[int]) -> Strides:
        """The places from the index `starts` on."""
        first = self.first + sum(start * step for start, step in zip(starts, self.steps))
        return Strides(first, self.steps)

    def permuted(self, order: Sequence[int]) -> Strides:
        """The axes in another order."""
        return Strides(self.first, tuple(self.steps[axis] for axis in order))

    def mirrored(self, shape: Sequence[int], axes: Sequence[int]) -> Strides:
        """The indices along `axes` from the last to the first. Shapes: `shape`."""
        first = self.first + sum((shape[axis] - 1) * self.steps[axis] for axis in axes)
        steps = tuple(-step if axis in axes else step for axis, step in enumerate(self.steps))
        return Strides(first, steps)

    def inserted(self, axis: int, step: int) -> Strides:
        """A new axis before `axis`."""
        return Strides(self.first, (*self.steps[:axis], step, *self.steps[axis:]))


@dataclass(frozen=True)
class StridedCopy:
    """y = x at the places of an index of `shape`; or the sum of `repeats` elements, `repeat` apart.

    Different indices have different places in y.
    """

    shape: tuple[int, ...]
    x: Strides
    y: Strides
    repeats: int = 1
    repeat: int = 0

    def run(self, backend: Backend, x: SyncedMemory, y: SyncedMemory, whole: bool = True) -> None:
        """Copy on the device, or on the host for a backend without kernels of layers.

        Without `whole`, places of y that no index has are set to 0.
        """
        if backend.kernels is None:
            target = y.mutable_host()
            if not whole:
                target[...] = 0
            self._copy(x.host(), target)
            return
        result = y.mutable_dev()
        if not whole:
            backend.memory.fill(result, 0.0)
        if math.prod(self.shape):
            _merged(self)._launch(backend.kernels, x.dev(), result)

    def _copy(self, x: HostArray, y: HostArray) -> None:
        if not math.prod(self.shape):
            return
        target = _view(y, self.shape, self.y)
        if self.repeats == 1:
            target[...] = _view(x, self.shape, self.x)
            return
        axis = len(self.shape)
        source = self.x.inserted(axis, self.repeat)
        target[...] = _view(x, (*self.shape, self.repeats), source).sum(axis=axis)

    def _launch(self, kernels: Any, x: Any, y: Any) -> None:
        surplus = len(self.shape) - _KERNEL_AXES
        if surplus > 0:
            for index in range(self.shape[0]):
                self._part(index)._launch(kernels, x, y)
            return
        ones, zeros = (1,) * -surplus, (0,) * -surplus
        count = math.prod(self.shape)
        args = (x, y, count, self.x.first, self.y.first, self.repeats, self.repeat)
        axes = (*ones, *self.shape, *zeros, *self.x.steps, *zeros, *self.y.steps)
        kernels.elementwise("strided", "strided", count, (*args, *axes))

    def _part(self, index: int) -> StridedCopy:
        """The copy at one index of the first axis."""
        x, y = (
            Strides(side.first + index * side.steps[0], side.steps[1:]) for side in (self.x, self.y)
        )
        return StridedCopy(self.shape[1:], x, y, self.repeats, self.repeat)


def _merged(copy: StridedCopy) -> StridedCopy:
    """The same copy with as few axes as possible."""
    shape: list[int] = []
    steps: list[tuple[int, int]] = []
    for size, *pair in zip(copy.shape, copy.x.steps, copy.y.steps):
        step = pair[0], pair[1]
        if size == 1:
            continue
        if steps and steps[-1] == (step[0] * size, step[1] * size):
            shape[-1] *= size
            steps[-1] = step
        else:
            shape.append(size)
            steps.append(step)
    x = Strides(copy.x.first, tuple(step for step, _ in steps))
    y = Strides(copy.y.first, tuple(step for _, step in steps))
    return StridedCopy(tuple(shape), x, y, copy.repeats, copy.repeat)


def _view(array: HostArray, shape: tuple[int, ...], strides: Strides) -> HostArray:
    flat = array.reshape(-1)
    size = flat.itemsize
    return as_strided(flat[strides.first :], shape, [step * size for step in strides.steps])
