"""Copies and fills by the compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.backend.cpu.memory import HostMemory, check_runs
from runtime.backend.cpu.native_library import NativeLibrary, elements, floats


class NativeMemory(HostMemory):
    """MemoryOps by the compiled kernels."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

    def copy(self, src: HostArray, dst: HostArray) -> None:
        size, dtype = src.size, src.dtype
        source, target = (
            elements("copy: src", src, size, dtype),
            elements("copy: dst", dst, size, dtype),
        )
        self._library.run("copy", src.nbytes, source, target)

    def copy_2d(
        self,
        src: HostArray,
        dst: HostArray,
        rows: int,
        cols: int,
        src_at: tuple[int, int],
        dst_at: tuple[int, int],
    ) -> None:
        check_runs(src, rows, cols, src_at)
        check_runs(dst, rows, cols, dst_at)
        if rows == 0 or cols == 0:
            return
        size, dtype = src.itemsize, src.dtype
        source = elements("copy_2d: src", src, src.size, dtype) + src_at[0] * size
        target = elements("copy_2d: dst", dst, dst.size, dtype) + dst_at[0] * size
        strides = src_at[1] * size, dst_at[1] * size
        self._library.run("copy_2d", rows, cols * size, source, strides[0], target, strides[1])

    def empty(self, count: int, dtype: np.dtype[Any]) -> HostArray:
        self._library.prevent_replay()
        return super().empty(count, dtype)

    def fill(self, x: HostArray, value: float) -> None:
        self._library.run("fill", x.size, value, floats("fill: x", x, x.size))
