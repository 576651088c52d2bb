"""Calls of the emulator's shared libraries: guarded memory, and launches."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cuda_kernels.manifest import Signature
from prototxt_gen.errors import DeviceError

_ERROR_SIZE = 1024


class EmuLaunch(ctypes.Structure):
    """See cuda_kernels/host/runtime.h."""

    _fields_ = [
        ("kernel", ctypes.c_char_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint64),
    ]


class EmulatorLibrary:
    """The emulator's runtime, of one build (plain, or with a sanitizer)."""

    def __init__(self, path: Path) -> None:
        dll = _open(path)
        u64, out = ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint64)
        self._allocate = _function(dll, "emu_allocate", u64, [u64])
        self._free = _function(dll, "emu_free", None, [u64])
        self._lend = _function(dll, "emu_lend", ctypes.c_int, [u64, u64])
        self._extent = _function(dll, "emu_extent", u64, [u64])
        self._check = _function(
            dll, "emu_check_fences", ctypes.c_int, [out, out, ctypes.POINTER(ctypes.c_int)]
        )

    def allocate(self, size: int) -> int:
        """Allocate guarded memory; returns its address, 0 when no memory is left."""
        return int(self._allocate(size))

    def free(self, address: int) -> None:
        self._free(address)

    def lend(self, address: int, size: int) -> None:
        """Fill the bytes with NaN and guard the bytes after them.

        Raises:
            DeviceError: there is no such allocation.
        """
        if self._lend(address, size):
            raise DeviceError(
                f"emu: {size} bytes are lent at {address:#x}, where no such allocation is; "
                "expected the address of an allocation at least that large; check the allocator"
            )

    def expect_owned(self, operation: str, address: int, size: int) -> None:
        """Check that bytes are within an allocation.

        Raises:
            DeviceError: some are not.
        """
        extent = int(self._extent(address))
        if size > extent:
            raise DeviceError(
                f"emu: {operation} of {size} bytes at {address:#x}; expected them within an "
                f"allocation, which extends for {extent} bytes; check address, size and lifetime"
            )

    def check_fences(self, kernel: str) -> None:
        """Check that a kernel has not written to guard bytes.

        Raises:
            DeviceError: it has.
        """
        address, size, before = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_int()
        if self._check(ctypes.byref(address), ctypes.byref(size), ctypes.byref(before)):
            side = "before the start" if before.value else "beyond the end"
            raise DeviceError(
                f"kernel '{kernel}': it wrote {side} of the allocation of {size.value} bytes at "
                f"{address.value:#x}; expected writes within arrays; check its index arithmetic"
            )


class EmulatedModule:
    """One .cu file, compiled and loaded."""

    def __init__(self, path: Path) -> None:
        self._dll = _open(path)

    def entry(self, signature: Signature) -> Callable[..., Any]:
        """The function that launches the kernel; see `run`."""
        return _function(
            self._dll,
            f"emu_launch_{signature.name}",
            ctypes.c_int,
            [
                ctypes.POINTER(EmuLaunch),
                ctypes.c_char_p,
                ctypes.c_size_t,
                ctypes.c_char_p,
                ctypes.c_size_t,
            ],
        )


def run(entry: Callable[..., Any], launch: EmuLaunch, packed: bytes) -> None:
    """Run a kernel over its grid.

    Raises:
        DeviceError: the kernel has a fault; the message gives its block and thread.
    """
    error = ctypes.create_string_buffer(_ERROR_SIZE)
    if entry(ctypes.byref(launch), packed, len(packed), error, _ERROR_SIZE):
        raise DeviceError(error.value.decode(errors="replace"))


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as cause:
        raise DeviceError(
            f"{path}: a built kernel file does not load: {cause}; expected one that this process "
            "can load; delete it, and it is built again"
        ) from cause


def _function(dll: ctypes.CDLL, name: str, result: Any, arguments: list[Any]) -> Callable[..., Any]:
    function = getattr(dll, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]  # ctypes has no type for it
