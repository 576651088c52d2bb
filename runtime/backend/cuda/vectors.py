"""Memory moves, vectors of any shape, their sums, and the update of the weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from prototxt_gen.errors import ShapeError, UnsupportedError
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import (
    FLOAT,
    Launcher,
    blocks,
    expect_same_size,
    rows_along_y,
)


class MemoryOps:
    """See the section "Memory" of Backend."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def empty(self, count: int, dtype: np.dtype[Any]) -> DeviceArray:
        """See Backend.empty."""
        return self._launcher.memory.empty(count, np.dtype(dtype))

    def upload(self, host: HostArray, device: DeviceArray) -> None:
        """See Backend.upload."""
        self._launcher.expect_own("upload", device)
        _expect_alike("upload", host, device)
        self._launcher.driver.upload(host, device.address)

    def download(self, device: DeviceArray, host: HostArray) -> None:
        """See Backend.download."""
        self._launcher.expect_own("download", device)
        _expect_alike("download", host, device)
        self._launcher.driver.download(device.address, host)

    def copy(self, src: DeviceArray, dst: DeviceArray) -> None:
        """See Backend.copy. The source may lie on another device of this process."""
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
        """See Backend.copy_2d."""
        if rows == 0 or cols == 0:
            return
        ends = [
            DeviceArray(array.address + at * FLOAT.itemsize, (span,), array.dtype, array.owner)
            for array, at, span in (
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
        """See Backend.fill."""
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


class VectorOps:
    """See the sections "Vectors" and "Updates" of Backend."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def axpy(self, alpha: float, x: DeviceArray, y: DeviceArray) -> None:
        """See Backend.axpy."""
        count = expect_same_size("axpy", x, y)
        self._launcher.elementwise("vectors", "axpy", count, (x, y, count, alpha))

    def scal(self, alpha: float, x: DeviceArray) -> None:
        """See Backend.scal."""
        self._launcher.elementwise("vectors", "scal", x.size, (x, x.size, alpha))

    def sub(self, x: DeviceArray, y: DeviceArray, out: DeviceArray) -> None:
        """See Backend.sub."""
        count = expect_same_size("sub", x, y, out)
        self._launcher.elementwise("vectors", "sub", count, (x, y, out, count))

    def asum(self, x: DeviceArray) -> float:
        """See Backend.asum."""
        return self._sum("asum_pieces", x)

    def sumsq(self, x: DeviceArray) -> float:
        """See Backend.sumsq."""
        return self._sum("dot_pieces", x, x)

    def dot(self, x: DeviceArray, y: DeviceArray) -> float:
        """See Backend.dot."""
        expect_same_size("dot", x, y)
        return self._sum("dot_pieces", x, y)

    def _sum(self, kernel: str, *vectors: DeviceArray) -> float:
        launcher, count = self._launcher, vectors[0].size
        pieces = blocks(count, launcher.constant("sums", "PIECE"))
        partial, place = launcher.scratch(pieces, 2)
        total = DeviceArray(place.address, (1,), np.dtype(np.float64), place.owner)
        launcher.run("sums", kernel, pieces, (*vectors, partial, count))
        launcher.run("sums", "sum_up", 1, (partial, total, pieces))
        result = np.empty(1, np.float64)
        launcher.driver.download(total.address, result)
        return float(result[0])

    def sgd_update(
        self,
        w: DeviceArray,
        dw: DeviceArray,
        history: DeviceArray,
        lr: float,
        momentum: float,
        decay: float,
    ) -> None:
        """See Backend.sgd_update."""
        count, block = expect_same_size("sgd_update", w, dw, history), self._launcher.block
        place = None if block is None else block.take_rate(lr)
        given = lr if place is None else 0.0
        args = (dw, w, history, count, given, momentum, decay, place)
        self._launcher.elementwise("sgd_update", "sgd_update", count, args)


def _expect_alike(what: str, src: HostArray | DeviceArray, dst: DeviceArray) -> None:
    if src.size != dst.size or src.dtype != dst.dtype:
        raise ShapeError(
            f"{what}: {src.size} elements of {src.dtype} and {dst.size} of {dst.dtype}; expected "
            "the same count and dtype; check the shapes"
        )


def _span(array: DeviceArray, rows: int, cols: int, at: tuple[int, int]) -> int:
    """How many elements lie between the first and the last of the runs."""
    offset, stride = at
    span = (rows - 1) * stride + cols
    if offset < 0 or offset + span > array.size:
        raise ShapeError(
            f"copy_2d: {rows} runs of {cols} elements from {offset} with stride {stride}; "
            f"expected them to end within {array.size} elements, got {offset + span}; check the "
            "shapes"
        )
    return span
