"""Campaigns with readers that fail in known ways, and digests of mutants, for the tests."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable

from prototxt_gen.errors import DataError
from tests.mutants.campaign import campaign
from tests.mutants.case import Case, Format, make_mutant
from tests.mutants.formats import FORMATS

COUNT = 2


def _busy(_: bytes) -> None:
    while True:
        pass


def _blocked(_: bytes) -> None:
    signal.pause()


def _crash(_: bytes) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _take(_: bytes) -> None:
    bytearray(64 << 20)


def _take_too_much(_: bytes) -> None:
    try:
        bytearray(1 << 40)
    except MemoryError as cause:
        raise DataError("f: no memory") from cause


def _refuse(_: bytes) -> None:
    raise DataError("f: damaged")


def _talk(_: bytes) -> None:
    raise DataError("long line\n" * 1000)


def _contradict(data: bytes) -> None:
    assert data == b"other"


def _leave_open(_: bytes) -> None:
    for _number in range(50):
        os.dup(0)


def _complain(_: bytes) -> None:
    os.write(2, b"error: (-4:Insufficient memory) Failed to allocate 6979321856 bytes")


def _accept(_: bytes) -> None:
    pass


def _convert(data: bytes) -> None:
    int(data)


_READERS = (
    _busy, _blocked, _crash, _take, _take_too_much, _complain, _refuse, _talk, _contradict,
    _convert, _leave_open, _accept,
)  # fmt: skip


def failures() -> dict[str, object]:
    """The findings of a campaign with each reader."""
    return {read.__name__[1:]: _campaign(read) for read in _READERS}


def _campaign(read: Callable[[bytes], None]) -> dict[str, object]:
    def prepare() -> list[Case]:
        return [Case("case", (b"sample",), lambda rng, sample, _: sample + rng.randbytes(2), read)]

    patience = 2.0 if read is _blocked else 100.0
    form = Format("rehearsal", prepare, seconds=0.2, patience=patience, memory=16 << 20)
    return campaign(form, 1, range(COUNT)).as_dict()


def mutants() -> dict[str, list[str]]:
    """Digests of the first mutants of every format."""
    made = {}
    for name, form in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            cases = form.prepare()
            made[name] = [
                hashlib.sha256(make_mutant(name, cases, 1, index).data).hexdigest()
                for index in range(30)
            ]
            os.chdir("/")
    return made


if __name__ == "__main__":
    print(json.dumps({"failures": failures, "mutants": mutants}[sys.argv[1]]()))
