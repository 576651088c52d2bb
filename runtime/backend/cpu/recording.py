"""Recording calls of compiled kernels and replaying them as a program, in one call from Python.

A program releases the interpreter lock once for many kernels, so nets in several threads do not
wait for each other between layers.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from runtime.backend.cpu.native_library import NativeLibrary, Workspace, address
from runtime.backend.cpu.native_signatures import F32, KERNELS, NOT_REPEATABLE
from runtime.backend.recording import Watch

_WORD = (1 << 64) - 1
# A program returns to the interpreter after this time, so that signals are handled.
_LIMIT_US = 100_000
# Programs that last as long take turns if several threads run programs.
_TURN_US = 10_000


class KernelTape:
    """See Tape. Addresses in a workspace are stored relative to it; each replay has its own."""

    def __init__(self) -> None:
        self.pure = True
        self.names: list[str] = []
        self.words: list[tuple[int, ...]] = []
        """For each call its arguments as 64-bit words."""
        self.relative: list[tuple[int, ...]] = []
        """For each call the indices of the words that are relative to the workspace."""
        self.workspace_bytes = 0
        self.kept: list[Any] = []
        """Structs and arrays whose addresses are among the words."""
        self._structs: list[tuple[bytes, ...]] = []
        self._workspace: Workspace | None = None

    @property
    def calls(self) -> int:
        return len(self.names)

    def add(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Record the next call of a kernel."""
        if name in NOT_REPEATABLE or name not in KERNELS:
            self.pure = False
            return
        words: list[int] = []
        relative: list[int] = []
        structs: list[bytes] = []
        for index, (kind, argument) in enumerate(zip(KERNELS[name], arguments, strict=True)):
            if kind is F32:
                words.append(struct.unpack("<I", struct.pack("<f", argument))[0])
            elif argument is None:
                words.append(0)
            elif isinstance(argument, (int, np.integer)):
                offset = self._offset(int(argument)) if kind is ctypes.c_void_p else None
                if offset is not None:
                    relative.append(index)
                words.append(int(argument) & _WORD if offset is None else offset)
            else:  # a reference to a struct
                structs.append(bytes(argument._obj))
                self.kept.append(argument._obj)
                words.append(ctypes.addressof(argument._obj))
        self.names.append(name)
        self.words.append(tuple(words))
        self.relative.append(tuple(relative))
        self._structs.append(tuple(structs))

    def use(self, workspace: Workspace, size: int) -> None:
        """Record that the next calls use `size` bytes of a workspace; two at once cannot replay."""
        if self._workspace is not None and not self._workspace.is_idle:
            self.pure = False
        self._workspace = workspace
        self.workspace_bytes = max(self.workspace_bytes, size)

    def _offset(self, pointer: int) -> int | None:
        """The position of an address in the workspace; None if it is not in it."""
        workspace = self._workspace
        if workspace is None or workspace.is_idle:
            return None
        offset = pointer - workspace.address
        return offset if 0 <= offset < workspace.size else None

    def __eq__(self, other: object) -> bool:
        """Whether both recorded the same calls; structs are compared by their contents."""
        if not isinstance(other, KernelTape) or self.names != other.names:
            return False
        if self.relative != other.relative or self._structs != other._structs:
            return False
        return all(map(_same_words, self.names, self.words, other.words))

    __hash__ = None  # type: ignore[assignment]  # it grows


def _same_words(name: str, left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    """Whether two calls of a kernel have the same arguments, addresses of structs aside."""
    return all(
        a == b or issubclass(kind, ctypes._Pointer)
        for kind, a, b in zip(KERNELS[name], left, right, strict=True)
    )


class _Call(ctypes.Structure):
    """program.h: Call."""

    _fields_ = [("function", ctypes.c_void_p), ("first", ctypes.c_int64)]


class KernelProgram:
    """The calls of several tapes, in the form of native/program.cpp."""

    def __init__(self, library: NativeLibrary, tapes: Sequence[KernelTape]) -> None:
        self.count = sum(tape.calls for tape in tapes)
        self.workspace_bytes = max((tape.workspace_bytes for tape in tapes), default=0)
        self._kept = [kept for tape in tapes for kept in tape.kept]
        self._calls = (_Call * self.count)()
        words: list[int] = []
        relative: list[int] = []
        number = 0
        for tape in tapes:
            for name, arguments, places in zip(tape.names, tape.words, tape.relative, strict=True):
                self._calls[number] = _Call(library.entry(name), len(words))
                relative += [len(words) + place for place in places]
                words += arguments
                number += 1
        self._words = np.array(words, np.uint64)
        self._relative = np.array(relative, np.intp)
        self._offsets = self._words[self._relative]
        self._base = 0
        self._spent = np.zeros(1, np.int64)

    def run(self, library: NativeLibrary) -> None:
        """Make all calls, with a workspace of the library."""
        with library.workspace(self.workspace_bytes) as base:
            if base != self._base:
                self._words[self._relative] = self._offsets + np.uint64(base)
                self._base = base
            done = 0
            while done < self.count:
                done = library.run_program(
                    ctypes.addressof(self._calls),
                    address(self._words),
                    done,
                    self.count,
                    _LIMIT_US,
                    _TURN_US,
                    address(self._spent),
                )


class KernelRecorder:
    """See Recorder. Several threads may record and replay at the same time."""

    generation = 0

    def __init__(self, library: NativeLibrary) -> None:
        self.watch = Watch()
        self.replays = 0
        self._library = library

    def begin(self, pass_number: int, rates: Sequence[float]) -> Hashable:
        """See Recorder.begin. Rates are arguments of the recorded calls."""
        return tuple(rates)

    def record(self, work: Callable[[], object]) -> KernelTape:
        """See Recorder.record."""
        tape = KernelTape()
        with self._recording(tape):
            work()
        return tape

    def paused(self) -> Any:
        """See Recorder.paused."""
        return self._recording(None)

    @contextmanager
    def _recording(self, tape: KernelTape | None) -> Iterator[None]:
        current = self._library.current
        before, current.tape = current.tape, tape
        try:
            yield
        finally:
            current.tape = before

    def capture(self, tapes: Sequence[Any]) -> KernelProgram:
        """See Recorder.capture."""
        return KernelProgram(self._library, tapes)

    def replay(self, graph: KernelProgram) -> None:
        """See Recorder.replay."""
        self.replays += 1
        graph.run(self._library)
