"""Copies and fills by the compiled kernels."""

from __future__ import annotations

from runtime.backend.base import HostArray
from runtime.backend.cpu.memory import HostMemory
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

    def fill(self, x: HostArray, value: float) -> None:
        self._library.run("fill", x.size, value, floats("fill: x", x, x.size))
