"""A process that reads mutants one after another, within limits."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import mmap
import os
import re
import resource
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prototxt_gen.errors import VerydeepError
from tests.mutants.case import Format, Mutant, make_mutant

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("prototxt_gen", "data_prep", "runtime", "cuda_kernels")
FINDINGS, TRACE, MUTANT, WORDS = "findings.jsonl", "trace.txt", "mutant", "stderr"
LONGEST_MESSAGE = 4000
_STATE = struct.Struct("<3q")
_ADDRESS_SPACE = 3 << 30
_LARGEST_FILE = 1 << 30
_LONGEST_START = 120
_MOST_LEFT_OPEN = 40
_NO_MEMORY = re.compile(
    rb"insufficient memory|failed to allocate|bad_alloc|out of memory|cannot allocate memory", re.I
)
_MOST_WORDS = 1 << 20
_PAGE = resource.getpagesize()


class Board:
    """The progress of a worker, in memory that its supervisor can read after it has ended."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _STATE.size)
        self.write(-1, 0, 0)

    def write(self, index: int, accepted: int, refused: int) -> None:
        self._memory[: _STATE.size] = _STATE.pack(index, accepted, refused)

    def read(self) -> tuple[int, int, int]:
        """The last mutant that was begun, and the numbers of those accepted and refused."""
        index, accepted, refused = _STATE.unpack(self._memory[: _STATE.size])
        return index, accepted, refused


class _Messages(logging.Handler):
    """Formats every message, as a log does, and discards it."""

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()


def run(
    form: Format, seed: int, indices: Iterable[int], notes: Path, board: Board, loud: bool = False
) -> None:
    """Read mutants; the working folder belongs to this process.

    Findings are written to `notes` at once, so that they are kept if the process ends. With `loud`
    each mutant is printed and stored too, and errors are printed with their traces.
    """
    signal.alarm(_LONGEST_START)
    cases = form.prepare()
    trace = (notes / TRACE).open("w")
    words = _silence(notes, loud)
    _limit(form, trace)
    accepted = refused = 0
    opened = _open_things()
    index = -1
    with (notes / FINDINGS).open("a") as findings:
        for index in indices:
            board.write(index, accepted, refused)
            mutant = make_mutant(form.name, cases, seed, index)
            if loud:
                (notes / MUTANT).write_bytes(mutant.data)
                print(f"{mutant.case.name}, {len(mutant.data)} bytes: {mutant.data[:2000]!r}")
            signal.setitimer(signal.ITIMER_PROF, form.seconds)
            signal.setitimer(signal.ITIMER_REAL, form.patience)
            typed, finding = _judge(form, mutant, loud)
            if words.ran_out() and finding is None and not form.honest_memory:
                message = f"a library could not allocate, for a file of {len(mutant.data)} bytes"
                typed, finding = False, ("allocation", "library", "", message)
            refused += typed
            accepted += finding is None and not typed
            if finding is not None:
                _note(findings, index, mutant.case.name, finding)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        board.write(-1, accepted, refused)
        for kind, count in _open_things().items():
            if count > opened[kind] + _MOST_LEFT_OPEN:
                leak = ("leak", f"{kind} left open", "", f"{count - opened[kind]} more than before")
                _note(findings, index, "", leak)


Finding = tuple[str, str, str, str]
"""Kind, error, place and message."""


def _note(findings: Any, index: int, case: str, finding: Finding) -> None:
    keys = ("kind", "error", "place", "message")
    line = {"index": index, "case": case, **dict(zip(keys, finding))}
    findings.write(json.dumps(line) + "\n")
    findings.flush()


def _judge(form: Format, mutant: Mutant, loud: bool) -> tuple[bool, Finding | None]:
    """Whether the mutant was refused with a typed error, and the finding if there is one."""
    before, peak = _resident(), _peak()
    try:
        mutant.case.read(mutant.data)
        refusal = None
    except VerydeepError as error:
        refusal = error
        if loud:
            traceback.print_exc(file=sys.stdout)
    except BaseException as error:  # noqa: BLE001  examined below
        if loud:
            traceback.print_exc(file=sys.stdout)
        return False, untyped(error)
    after = _peak()
    if not form.honest_memory and after > peak and after - before > form.memory:
        _forget_peak()
        message = f"{(after - before) >> 20} MB for a file of {len(mutant.data)} bytes"
        place = "" if refusal is None else place_of(refusal)
        return False, ("allocation", "memory", place, message)
    if refusal is None:
        return False, None
    if not form.honest_memory and _ran_out(refusal):
        return False, ("allocation", "MemoryError", place_of(refusal), str(refusal)[:300])
    if len(str(refusal)) > LONGEST_MESSAGE:
        kind, length = type(refusal).__name__, len(str(refusal))
        return False, ("message", kind, place_of(refusal), f"{length} characters")
    return True, None


def untyped(error: BaseException) -> Finding:
    """Describe an error outside of the typed family."""
    place = place_of(error)
    kind = "wrong" if isinstance(error, AssertionError) and "tests/" in place else "untyped"
    try:
        message = str(error)[:300]
    except Exception as cause:  # noqa: BLE001  an error that has no text is itself a finding
        message = f"no text: {type(cause).__name__}"
    return kind, type(error).__name__, place, message.encode(errors="replace").decode()


def place_of(error: BaseException) -> str:
    """The innermost line of the program that the error passed, or of this package."""
    own = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        place = product_place(frame.filename, frame.lineno or 0)
        if place:
            return place
        path = Path(frame.filename)
        if not own and path.is_relative_to(ROOT):
            own = f"{path.relative_to(ROOT)}:{frame.lineno}"
    return own


def product_place(filename: str, line: int) -> str:
    """`file:line` for a file of the program, '' for other files."""
    path = Path(filename)
    if not path.is_relative_to(ROOT):
        return ""
    relative = path.relative_to(ROOT)
    return f"{relative}:{line}" if relative.parts[0] in PRODUCT else ""


def _ran_out(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Words:
    """The standard error in a file: some libraries report failed allocations only there."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a+b", buffering=0)
        os.dup2(self._stream.fileno(), 2)
        self._seen = 0

    def ran_out(self) -> bool:
        """Whether an allocation has failed since the last call."""
        size = os.fstat(2).st_size
        if size == self._seen:
            return False
        content = os.pread(self._stream.fileno(), size - self._seen, self._seen)
        self._seen = size
        if size > _MOST_WORDS:
            self._stream.truncate(0)
            self._seen = 0
        return _NO_MEMORY.search(content) is not None


def _silence(notes: Path, loud: bool) -> _Words:
    """Suppress the messages of libraries about each mutant."""
    import cv2

    cv2.setNumThreads(1)
    logger = logging.getLogger("verydeep")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [_Messages()]
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0,) if loud else (0, 1):
        os.dup2(null, descriptor)
    os.close(null)
    return _Words(notes / WORDS)


def _limit(form: Format, trace: Any) -> None:
    """Limit memory, files and time; a trace is written at the time limit."""
    room = _address_space() + max(_ADDRESS_SPACE, 2 * form.memory)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    faulthandler.enable(trace)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
        faulthandler.register(number, trace, all_threads=True, chain=True)


def _statm(field: int) -> int:
    with contextlib.suppress(OSError), Path("/proc/self/statm").open() as stream:
        return int(stream.read().split()[field]) * _PAGE
    return 0


def _address_space() -> int:
    return _statm(0)


def _resident() -> int:
    return _statm(1) or _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _open_things() -> dict[str, int]:
    folder = Path("/proc/self/fd")
    files = len(list(folder.iterdir())) if folder.is_dir() else 0
    return {"files": files, "threads": threading.active_count()}
