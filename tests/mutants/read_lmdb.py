"""Databases with damaged pages: reading and appending.

A record whose bytes are not damaged must be read correctly, or not at all.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data_prep.inspect_db import inspect
from data_prep.lmdb_io import Reader, Writer
from prototxt_gen.errors import DataError
from tests.mutants.case import Case, Format
from tests.mutants.file_damage import lmdb_damage
from tests.mutants.lmdb_bases import BASES, PAGE, Base, Records, damage_base, make_base

_NEW = {b"\xff%03d" % number: b"new" * 20 * number * number for number in range(12)}
"""Records to append: their keys are the greatest, and some of their values have separate pages."""
_META = 152
"""Bytes of a file's header that identify its state."""


def _place(data: bytes) -> Path:
    """Create the database `mutant` from the bytes of a data.mdb."""
    folder = Path("mutant")
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / "data.mdb").write_bytes(data)
    return folder


def _read(folder: Path) -> Records:
    with Reader(folder) as reader:
        return dict(iter(reader))


def check_records(base: Base, content: bytes, read: Records) -> None:
    """Check that every record is that of a committed state, unless its bytes were damaged."""
    if read in base.states:
        return
    length = min(len(content), len(base.content))
    differs = np.frombuffer(content, np.uint8, length) != np.frombuffer(
        base.content, np.uint8, length
    )
    headers = differs[:_META].any() or differs[PAGE : PAGE + _META].any()
    # With the header, the table of free pages, which distinguishes old values, may be lost.
    place = 8 if headers else 0
    touched = {
        key
        for key, ranges in base.own.items()
        if any(differs[start : stop + place].any() for start, stop in ranges)
    }
    right = _others_are_right(base.states[-1], read, touched)
    if not right and headers:  # an earlier state, whose records are elsewhere
        right = any(_others_are_right(state, read, set(read)) for state in base.states)
    assert right


def _others_are_right(state: Records, read: Records, touched: set[bytes]) -> bool:
    """Whether all records except the damaged ones are those of a state; keys may have changed."""
    strange = [key for key in read if key not in state]
    return len(strange) <= len(touched) and all(
        key in touched or read.get(key) == value for key, value in state.items()
    )


def _reader(base: Base) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        folder = _place(data)
        check_records(base, data, _read(folder))
        with Reader(folder) as reader:
            inspect(reader, decode=base.images)

    return read


def _appender(base: Base) -> Callable[[bytes], None]:
    def append(data: bytes) -> None:
        chance = random.Random(zlib.crc32(data))
        new = dict(_NEW)
        if chance.random() < 0.3:
            replaced = chance.sample(sorted(base.states[-1]), 5)
            new |= {key: b"replaced" * chance.choice([1, 900]) for key in replaced}
        folder = _place(data)
        try:
            before = _read(folder)
        except DataError:
            before = None
        if chance.random() < 0.1:
            (folder / "lock.mdb").write_bytes(chance.randbytes(chance.choice([8, 200, 8192])))
        with Writer(folder, append=True, commit_every=chance.choice([4, 1000])) as writer:
            writer.last_key()
            for key, value in new.items():
                writer.put(key, value)
        if before is not None:
            assert _read(folder) == before | new

    return append


def _cases(consume: Callable[[Base], Callable[[bytes], None]]) -> list[Case]:
    cases = []
    for name in BASES:
        base = make_base(name, Path("samples") / name)
        cases.append(Case(name, (base.content,), _damage(base), consume(base)))
    return cases


def _damage(base: Base) -> Callable[[random.Random, bytes, Sequence[bytes]], bytes]:
    def damage(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
        if rng.random() < 0.4:
            return lmdb_damage(rng, sample, others)
        return damage_base(rng, base)

    return damage


def prepare_read() -> list[Case]:
    """Databases of several levels, with large values, with free pages, of images."""
    return _cases(_reader)


def prepare_append() -> list[Case]:
    """The same databases, continued as by --resume."""
    return _cases(_appender)


FORMATS = (Format("lmdb-read", prepare_read), Format("lmdb-append", prepare_append))
