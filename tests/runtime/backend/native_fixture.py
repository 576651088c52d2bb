"""The compiled kernels as tests open them."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from runtime.backend.cpu import native_library
from runtime.backend.cpu.lanes import aligned_empty
from runtime.backend.cpu.native_library import NativeLibrary

Host = npt.NDArray[np.float32]


def built_sets() -> list[str]:
    path = native_library.find_library()
    return native_library.available_sets(ctypes.CDLL(str(path))) if path else []


@cache
def opened(isa: str, threads: int) -> NativeLibrary:
    library = native_library.load(threads, isa)
    assert library is not None
    return library


needs_kernels = pytest.mark.skipif(
    native_library.why_not() is not None, reason=str(native_library.why_not())
)
# One parameter set per instruction set that this processor runs, and one that says what is missing.
each_set = pytest.mark.parametrize("isa", built_sets() or [pytest.param("none", marks=needs_kernels)])


def normal(*shape: int, seed: int = 0) -> Host:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def fenced(values: npt.ArrayLike) -> Host:
    """A copy whose last element is the last of a page that a guard page follows.

    A kernel that reads or writes beyond the end of its array ends the process.
    """
    array = np.ascontiguousarray(values)
    size = array.nbytes
    page = 4096
    pages = -(-size // page) + 1
    raw = aligned_empty((pages + 1) * page, np.dtype(np.uint8))
    start = -raw.ctypes.data % page
    guard = start + (pages - 1) * page
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    _GUARDS.append((raw, libc, raw.ctypes.data + guard))
    assert libc.mprotect(raw.ctypes.data + guard, page, 0) == 0
    out = raw[guard - size : guard].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


_GUARDS: list[tuple[npt.NDArray[np.uint8], ctypes.CDLL, int]] = []
