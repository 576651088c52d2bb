"""Allocations, copies and fills on a device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from prototxt_gen.errors import ShapeError, UnsupportedError
from runtime.backend.base import HostArray, MemoryOps
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import FLOAT, Launcher, blocks, rows_along_y
from runtime.process.process_lock import ProcessLock


class CudaMemory(MemoryOps):
    """MemoryOps by CUDA kernels."""

    def __init__(self, launcher: Launcher, lock: ProcessLock) -> None:
        self._launcher = launcher
        self._driver = launcher.driver
        self._lock = lock

    def empty(self, count: int, dtype: np.dtype[Any]) -> DeviceArray:
        with self._lock.current():
            return self._launcher.memory.empty(count, np.dtype(dtype))

    def view(self, array: DeviceArray, offset: int, shape: tuple[int, ...]) -> DeviceArray:
        return array.view(offset, shape)

    def upload(self, host: HostArray, device: DeviceArray) -> None:
        with self._lock.current():
            self._launcher.expect_own("upload", device)
            _expect_alike("upload", host, device)
            self._launcher.driver.upload(host, device.address)

    def download(self, device: DeviceArray, host: HostArray) -> None:
        with self._lock.current():
            self._launcher.expect_own("download", device)
            _expect_alike("download", host, device)
            self._launcher.driver.download(device.address, host)

    def copy(self, src: DeviceArray, dst: DeviceArray) -> None:
        # The source may be on another device of this process.
        self._launcher.expect_own("copy", dst)
        _expect_alike("copy", src, dst)
        self._launcher.launches += 1
        self._launcher.driver.copy(src.address, dst.address, src.nbytes)

    def copy_2d(
        self,
        src: DeviceArray,
        dst: DeviceArray,
        rows: int,
        cols: int,
        src_at: tuple[int, int],
        dst_at: tuple[int, int],
    ) -> None:
        if rows == 0 or cols == 0:
            return
        ends = [
            DeviceArray(array.address + offset * FLOAT.itemsize, (span,), array.dtype, array.owner)
            for array, offset, span in (
                (src, src_at[0], _span(src, rows, cols, src_at)),
                (dst, dst_at[0], _span(dst, rows, cols, dst_at)),
            )
        ]
        width = self._launcher.constant("vectors", "BLOCK")
        self._launcher.run(
            "vectors",
            "copy_2d",
            (blocks(cols, width), rows_along_y(rows), 1),
            (*ends, rows, cols, src_at[1], dst_at[1]),
        )

    def fill(self, x: DeviceArray, value: float) -> None:
        with self._lock.current():
            self._launcher.expect_own("fill", x)
            if value == 0.0 and math.copysign(1.0, value) > 0.0:
                self._launcher.launches += 1
                self._launcher.driver.fill_bytes(x.address, 0, x.nbytes)
                return
            if x.dtype != FLOAT:
                raise UnsupportedError(
                    f"fill: an array of {x.dtype} with {value}; expected float32, or the value 0; "
                    "upload the values instead"
                )
            self._launcher.elementwise("vectors", "fill", x.size, (x, x.size, value))

    def synchronize(self) -> None:
        self._driver.synchronize()


def _expect_alike(op: str, src: HostArray | DeviceArray, dst: DeviceArray) -> None:
    if src.size != dst.size or src.dtype != dst.dtype:
        raise ShapeError(
            f"{op}: {src.size} elements of {src.dtype} and {dst.size} of {dst.dtype}; expected "
            "the same count and dtype; check the shapes"
        )


def _span(array: DeviceArray, rows: int, cols: int, placement: tuple[int, int]) -> int:
    """The number of elements from the first run to the end of the last."""
    offset, stride = placement
    span = (rows - 1) * stride + cols
    if offset < 0 or offset + span > array.size:
        raise ShapeError(
            f"copy_2d: {rows} runs of {cols} elements from {offset} with stride {stride}; "
            f"expected them to end within {array.size} elements, got {offset + span}; check the "
            "shapes"
        )
    return span
