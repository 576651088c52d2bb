"""Memory ops: arrays of this device are NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from prototxt_gen.errors import ShapeError
from runtime.backend.base import HostArray, MemoryOps
from runtime.backend.cpu.lanes import Lane, Runner, aligned_empty

_GRAIN = 1 << 17


class HostMemory(MemoryOps):
    """The memory ops shared by NumPy and the compiled kernels."""

    def empty(self, count: int, dtype: np.dtype[Any]) -> HostArray:
        return aligned_empty(count, np.dtype(dtype))

    def view(self, array: HostArray, offset: int, shape: tuple[int, ...]) -> HostArray:
        count = 1
        for dim in shape:
            count *= dim
        return array.reshape(-1)[offset : offset + count].reshape(shape)

    def upload(self, host: HostArray, device: HostArray) -> None:
        self.copy(host, device)

    def download(self, device: HostArray, host: HostArray) -> None:
        self.copy(device, host)

    def synchronize(self) -> None:
        """Return at once: all ops are complete when they return."""


def input_batch(pixels: HostArray, offsets: HostArray | None, scale: float, y: HostArray) -> None:
    """See InputBatch."""
    if pixels.shape != y.shape or (offsets is not None and offsets.shape != y.shape[:2]):
        given = "none" if offsets is None else offsets.shape
        raise ShapeError(
            f"input_batch: pixels {pixels.shape} and offsets {given} for a blob {y.shape}; "
            "expected the blob's shape, and an offset for each channel of each image; check the "
            "batch"
        )
    y[...] = pixels
    if offsets is not None:
        y -= offsets[:, :, None, None]
        y *= np.float32(scale)


class NumpyMemory(HostMemory):
    """MemoryOps in NumPy."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def copy(self, src: HostArray, dst: HostArray) -> None:
        source, target = src.reshape(-1), dst.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            np.copyto(target[start:stop], source[start:stop])

        self._runner.run(task, target.size, _GRAIN)

    def copy_2d(
        self,
        src: HostArray,
        dst: HostArray,
        rows: int,
        cols: int,
        src_at: tuple[int, int],
        dst_at: tuple[int, int],
    ) -> None:
        np.copyto(_runs(dst, rows, cols, dst_at), _runs(src, rows, cols, src_at))

    def fill(self, x: HostArray, value: float) -> None:
        x.reshape(-1)[...] = value


def check_runs(array: HostArray, rows: int, cols: int, start: tuple[int, int]) -> None:
    """Check that `rows` runs of `cols` elements are within an array; see MemoryOps.copy_2d.

    Shapes: any.

    Raises:
        ShapeError: a run is outside of the array.
    """
    offset, stride = start
    end = offset + (rows - 1) * stride + cols
    if rows and cols and (offset < 0 or stride < 0 or end > array.size):
        raise ShapeError(
            f"copy_2d: {rows} runs of {cols} elements from {offset} with stride {stride}; "
            f"expected them to end within {array.size} elements, got {end}; check the shapes"
        )


def _runs(array: HostArray, rows: int, cols: int, start: tuple[int, int]) -> HostArray:
    """A view of `rows` runs of `cols` elements. Shapes: (rows, cols)."""
    check_runs(array, rows, cols, start)
    offset, stride = start
    flat = array.reshape(-1)
    if rows == 0 or cols == 0:
        return flat[:0].reshape(rows, cols)
    span = flat[offset : offset + (rows - 1) * stride + cols]
    return as_strided(span, (rows, cols), (stride * flat.itemsize, flat.itemsize))
