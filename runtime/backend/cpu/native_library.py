"""The compiled kernels: loading, choice of the instruction set, threads and workspaces.

The kernels are optional: if they cannot be used, `load` returns None and `why_not` the reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import mmap
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prototxt_gen.errors import DeviceError, ShapeError
from runtime.backend.base import HostArray
from runtime.backend.cpu.native_digest import source_digest
from runtime.backend.cpu.native_signatures import (
    ALONE,
    COUNTS,
    KERNELS,
    NOT_REPEATABLE,
    POINTER,
    SUMS,
)

MODULE = "runtime.backend.cpu._native"
# Best first. On machines other than x86-64 there is one set, the compiler's default.
INSTRUCTION_SETS = ("amx", "avx512", "avx2", "sse4", "generic")
FLOAT = np.dtype(np.float32)
_HUGE_PAGE = 2 << 20


def find_library() -> Path | None:
    """The path of the compiled library; None if it was not built."""
    spec = importlib.util.find_spec(MODULE)
    return Path(spec.origin) if spec is not None and spec.origin else None


def why_not() -> str | None:
    """The reason why the kernels cannot be used; None if they can.

    Raises:
        DeviceError: the library cannot be loaded, or was built from other sources.
    """
    path = find_library()
    if path is None:
        return (
            "the CPU kernels are not built; NumPy is used, which is several times slower; "
            "install a C++ compiler and run `python setup.py build_ext --inplace`"
        )
    if not available_sets(_open(path)):
        return (
            f"{path} has no code for this processor; NumPy is used, several times slower; "
            "build it on this machine: `python setup.py build_ext --inplace --force`"
        )
    return None


def load(threads: int, isa: str | None = None) -> NativeLibrary | None:
    """Open the kernels for a team of threads; None if they cannot be used (see `why_not`).

    `isa` selects an instruction set; the default is the best one that the processor supports.

    Raises:
        DeviceError: the instruction set is unknown or not supported by the processor, or the
            library cannot be loaded.
    """
    path = find_library()
    if path is None:
        return None
    dll = _open(path)
    sets = available_sets(dll)
    if not sets:
        return None
    if isa is not None and isa not in sets:
        raise DeviceError(
            f"cpu kernels: instruction set is {isa!r}; expected one of {', '.join(sets)}, which "
            "this processor supports; omit it to use the best"
        )
    return NativeLibrary(dll, isa or sets[0], threads)


def available_sets(dll: ctypes.CDLL) -> list[str]:
    """The instruction sets that were built and that this processor supports, best first."""

    def runs(isa: str) -> bool:
        supported = getattr(dll, f"verydeep_cpu_runs_{isa}", None)
        return hasattr(dll, f"{isa}_gemm") and (supported is None or bool(supported()))

    return [isa for isa in INSTRUCTION_SETS if runs(isa)]


def _open(path: Path) -> ctypes.CDLL:
    try:
        dll = ctypes.CDLL(str(path))
    except OSError as cause:
        raise DeviceError(
            f"{path}: the CPU kernels cannot be loaded: {cause}; "
            "rebuild them with `python setup.py build_ext --inplace --force`, or delete the file"
        ) from cause
    _check_sources(path, dll)
    return dll


def _check_sources(path: Path, dll: ctypes.CDLL) -> None:
    """Check that the library was built from the present sources."""
    sources = getattr(dll, "verydeep_sources", None)
    if sources is not None:
        sources.restype = ctypes.c_char_p
    built = sources().decode() if sources is not None else "none"
    present = source_digest(Path(__file__).with_name("native"))
    if built and present and built != present:
        raise DeviceError(
            f"{path}: the CPU kernels were built from other sources; expected digest {present}, "
            f"got {built}; rebuild with `python setup.py build_ext --inplace --force`, or delete "
            "the file"
        )


class RecordedCalls(Protocol):
    """A recording of kernel calls; see runtime/backend/cpu/recording.py."""

    pure: bool
    kept: list[Any]

    def add(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Record a call of a kernel."""

    def use(self, workspace: Workspace, size: int) -> None:
        """Record the workspace of the next calls."""


class CurrentTape(threading.local):
    """The tape on which the kernels of the calling thread are recorded; None if they are not."""

    tape: RecordedCalls | None = None


class NativeLibrary:
    """The kernels of one instruction set with a team of threads.

    Any number of threads may call it at the same time, before and after a fork. The interpreter
    lock is released while a kernel runs.

    Raises:
        DeviceError: the threads cannot be created.
    """

    def __init__(self, dll: ctypes.CDLL, isa: str, threads: int) -> None:
        self.isa = isa
        self.threads = threads
        dll.verydeep_team_create.restype = POINTER
        dll.verydeep_team_create.argtypes = [ctypes.c_int]
        dll.verydeep_team_destroy.restype = None
        dll.verydeep_team_destroy.argtypes = [POINTER]
        self._team = dll.verydeep_team_create(threads)
        if not self._team:
            raise DeviceError(f"cpu kernels: no memory for {threads} threads; use fewer threads")
        weakref.finalize(self, dll.verydeep_team_destroy, self._team)
        self._functions: dict[str, Callable[..., Any]] = {}
        for table, result, lead in (
            (KERNELS, None, [POINTER]),
            (SUMS, ctypes.c_double, [POINTER]),
            (COUNTS, ctypes.c_int64, []),
            (ALONE, None, []),
        ):
            for name, arguments in table.items():
                function = getattr(dll, f"{isa}_{name}")
                function.restype, function.argtypes = result, [*lead, *arguments]
                self._functions[name] = function
        self._entries = {
            name: ctypes.cast(getattr(dll, f"{isa}_call_{name}"), POINTER).value or 0
            for name in KERNELS
            if name not in NOT_REPEATABLE
        }
        self._idle: list[Workspace] = []
        self.current = CurrentTape()

    def run(self, name: str, *arguments: Any) -> Any:
        """Call a kernel with this library's team."""
        if self.current.tape is not None:
            self.current.tape.add(name, arguments)
        return self._functions[name](self._team, *arguments)

    def entry(self, name: str) -> int:
        """The address of the function that calls a kernel as part of a program."""
        return self._entries[name]

    def run_program(self, *arguments: int) -> int:
        """See native/program.cpp for the arguments after the team."""
        return int(self._functions["run_program"](self._team, *arguments))

    def prevent_replay(self) -> None:
        """Mark the current recording as not repeatable, because an op computes in NumPy."""
        if self.current.tape is not None:
            self.current.tape.pure = False

    @property
    def is_recording(self) -> bool:
        """Whether the calling thread's kernels are recorded."""
        return self.current.tape is not None

    def keep(self, memory: object) -> bool:
        """Keep an object alive for as long as programs made of the current tape.

        Returns whether there is a tape.
        """
        if self.current.tape is not None:
            self.current.tape.kept.append(memory)
        return self.is_recording

    def count(self, name: str, *arguments: Any) -> int:
        """Call a function that returns a size."""
        return int(self._functions[name](*arguments))

    def function(self, name: str) -> Callable[..., Any]:
        """A kernel that runs in the calling thread."""
        return self._functions[name]

    def workspace(self, size: int) -> Workspace:
        """At least `size` bytes of scratch memory for one call: `with ... as address`.

        The contents are unspecified. Calls that run at the same time use different workspaces,
        which are reused and grow to the largest requested size.
        """
        try:
            workspace = self._idle.pop()
        except IndexError:
            workspace = Workspace(self._idle)
        workspace.resize(size)
        if self.current.tape is not None:
            self.current.tape.use(workspace, size)
        return workspace

    @property
    def workspace_bytes(self) -> int:
        """The memory of all idle workspaces. Units: bytes."""
        return sum(workspace.size for workspace in self._idle)


class Workspace:
    """Scratch memory of one call, which is reused after the call.

    It uses huge pages if available: kernels read dozens of streams at once, more than the TLB can
    hold in small pages.
    """

    def __init__(self, idle: list[Workspace]) -> None:
        self._idle = idle
        self._memory = np.empty(0, np.uint8)
        self.address = 0
        self.is_idle = False

    @property
    def size(self) -> int:
        """Size in bytes."""
        return int(self._memory.size)

    def resize(self, size: int) -> None:
        """Reserve the workspace for a call that needs `size` bytes."""
        self.is_idle = False
        if self._memory.size < size:
            self._memory = np.empty(0, np.uint8)  # release the old memory first
            self._memory = _huge_pages(size)
            self.address = address(self._memory)

    def __enter__(self) -> int:
        """Return the address of the memory."""
        return self.address

    def __exit__(self, *error: object) -> None:
        self.is_idle = True
        self._idle.append(self)


def _huge_pages(size: int) -> HostArray:
    """`size` bytes, aligned to a huge page; private, so a forked child process has its own copy."""
    length = -(-size // _HUGE_PAGE) * _HUGE_PAGE + _HUGE_PAGE
    if hasattr(mmap, "MAP_PRIVATE"):
        memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:  # Windows has neither this flag nor fork
        memory = mmap.mmap(-1, length)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(memory, np.uint8)
    start = -address(raw) % _HUGE_PAGE
    return raw[start : start + size]


def address(array: HostArray) -> int:
    """The address of the first element of an array. Shapes: any."""
    try:
        # Takes half the time of the dictionary below; called hundreds of times per iteration.
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    except (TypeError, ValueError):  # read-only, strided or empty
        return int(array.__array_interface__["data"][0])


def floats(label: str, array: HostArray, count: int) -> int:
    """The address of a contiguous float32 array.

    Shapes: any, of `count` elements.

    Raises:
        ShapeError: the array differs; the message starts with `label`.
    """
    return elements(label, array, count, FLOAT)


def elements(label: str, array: HostArray, count: int, dtype: np.dtype[Any]) -> int:
    """The address of a contiguous array of this dtype.

    Shapes: any, of `count` elements.

    Raises:
        ShapeError: the array differs; the message starts with `label`.
    """
    if array.dtype != dtype or array.size != count or not array.flags.c_contiguous:
        layout = "contiguous" if array.flags.c_contiguous else "strided"
        raise ShapeError(
            f"{label}: expected a contiguous {dtype} array of {count} elements, got a {layout} "
            f"{array.dtype} array of shape {array.shape}; "
            "allocate it with the backend's empty() and view()"
        )
    return address(array)
