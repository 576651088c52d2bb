"""The compiled kernels as tests open them, and arrays that end where memory ends."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime.backend.cpu import native_library
from runtime.backend.cpu.native_library import NativeLibrary

Host = npt.NDArray[Any]


def built_sets() -> list[str]:
    """Instruction sets to test: those built that this processor runs."""
    path = native_library.find_library()
    return native_library.available_sets(ctypes.CDLL(str(path))) if path else []


@cache
def opened(isa: str, threads: int) -> NativeLibrary:
    library = native_library.load(threads, isa)
    assert library is not None
    return library


needs_kernels = pytest.mark.skipif(not built_sets(), reason=str(native_library.why_not()))
each_set = pytest.mark.parametrize("isa", built_sets() or [pytest.param("-", marks=needs_kernels)])


def normal(*shape: int, seed: int = 0) -> Host:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def fenced(values: npt.ArrayLike) -> Host:
    """A copy that ends where its last page ends, followed by a page that is protected.

    A kernel that reads or writes beyond the end crashes the process.
    """
    array = np.ascontiguousarray(values)
    page = mmap.PAGESIZE
    pages = -(-array.nbytes // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    raw = np.frombuffer(memory, np.uint8)
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(raw.ctypes.data + pages * page, page, 0) == 0
    copy = raw[pages * page - array.nbytes : pages * page].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def junk(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> Host:
    """What an op must overwrite."""
    kind = np.dtype(dtype)
    return fenced(np.full(shape, np.nan if kind.kind == "f" else 77, kind))
