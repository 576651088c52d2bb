"""Damages LMDB files in many ways, reads them and adds records to them, and counts what happens.

Mutants are handled in child processes, so that a signal or a hang is seen as one. A run ends with
status 1 if a process died or hung, an error was not a DataError, or a record was wrong although its
own bytes had been left as they were.

    python -m tests.data_prep.lmdb_mutants --count 100000
"""

from __future__ import annotations

import argparse
import random
import resource
import selectors
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep import datum
from data_prep.inspect_db import inspect
from data_prep.lmdb_file import PageFile
from data_prep.lmdb_io import Reader, Writer
from data_prep.lmdb_pages import LEAF, check_values, read_nodes, value_offsets
from data_prep.lmdb_tree import leaf_pages
from prototxt_gen.errors import DataError
from tests.data_prep.small_images import photograph, record

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096
BAD = ("signal", "hang", "untyped", "wrong")
_NEW = {b"\xff%03d" % number: b"new" * 20 * number * number for number in range(12)}
"""Records that are added; their keys are the greatest, some of their values have own pages."""
_MODULE = "tests.data_prep.lmdb_mutants"
_MEMORY = 8 << 30
_PATIENCE = 120.0
Records = dict[bytes, bytes]
Patch = tuple[int, bytes]


@dataclass
class Base:
    """A sound database: its bytes, its committed states, and the bytes of each record."""

    content: bytes
    images: bool = False
    states: list[Records] = field(default_factory=list)
    own: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)
    """Ranges of the file that no number elsewhere can check: node, key and value of a record."""
    nodes: list[int] = field(default_factory=list)
    """Where nodes of records begin."""

    @property
    def pages(self) -> int:
        """The number of pages in the file."""
        return len(self.content) // PAGE


def _small(put: Callable[[Records], None], chance: random.Random) -> None:
    """Two levels of pages, keys added in random order."""
    keys = [b"%08d_n%08d/%d.JPEG" % (n, n % 10, n) for n in range(600)]
    chance.shuffle(keys)
    for start in range(0, 600, 200):
        put({key: key[:8] * 4 for key in keys[start : start + 200]})


def _deep(put: Callable[[Records], None], chance: random.Random) -> None:
    """Four levels of pages, of long keys."""
    keys = [b"%04d" % n * chance.randrange(60, 125) for n in range(160)]
    chance.shuffle(keys)
    for start in range(0, 160, 80):
        put({key: key[:40] for key in keys[start : start + 80]})


def _mixed(put: Callable[[Records], None], chance: random.Random) -> None:
    """Values in pages and on pages of their own, and some of them replaced, so pages are free."""
    put({b"%08d_x" % n: bytes([n]) * (50 + 60 * n) for n in range(90)})
    put({b"%08d_x" % n: bytes([n]) * (90 + 100 * n) for n in range(0, 90, 3)})
    put({b"%08d_x" % n: bytes([n]) * 70 for n in range(0, 90, 9)})


def _freed(put: Callable[[Records], None], chance: random.Random) -> None:
    """A list of free pages that has pages of its own."""
    put({b"%08d_x" % n: bytes([n]) * 12_000 for n in range(130)})
    put({b"%08d_x" % n: bytes([n]) * 20 for n in range(125)})
    put({b"%08d_y" % n: bytes([n]) * 5000 for n in range(5)})


def _images(put: Callable[[Records], None], chance: random.Random) -> None:
    """Datums of images: JPEG, PNG, raw pixels and floats."""
    values = []
    for number in range(8):
        image = photograph(8 + number, 12, number)
        png = datum.encode(image, "png", 95, "png")
        values += [
            record(image, number),
            record(image, number, encoded=False),
            datum.from_encoded(png, number).SerializeToString(),
            datum.from_array(np.full((3, 4, number + 1), 0.5, np.float32), 1).SerializeToString(),
        ]
    put({b"%08d_x" % number: value for number, value in enumerate(values)})


BASES = {"small": _small, "deep": _deep, "mixed": _mixed, "freed": _freed, "images": _images}


def make_base(name: str, folder: Path) -> Base:
    """Write a sound database in several commits."""
    base = Base(b"", name == "images")
    records: Records = {}

    def put(new: Records) -> None:
        records.update(new)
        with Writer(folder, append=folder.exists()) as writer:
            for key, value in new.items():
                writer.put(key, value)
        base.states.append(dict(sorted(records.items())))

    BASES[name](put, random.Random(name))
    base.content = (folder / "data.mdb").read_bytes()
    file = PageFile(folder)
    meta, _ = file.newest()
    nodes = read_nodes(file, leaf_pages(file, meta, meta.main), LEAF, meta.last_page)
    first, _ = check_values(nodes, PAGE, meta.last_page, len(base.content))
    offsets = value_offsets(nodes, first, PAGE)
    base.nodes = (nodes.numbers[nodes.page_of] * PAGE + nodes.pointers).tolist()
    for index, start in enumerate(base.nodes):
        key = nodes.key(index)
        value = int(offsets[index])
        base.own[key] = [
            (start, start + 8 + len(key)),
            (value, value + int(nodes.words[index])),
        ]
    return base


def _number(chance: random.Random, base: Base, old: int, size: int) -> int:
    """A number in place of another: near, of another page, or at a limit."""
    limit = (1 << 8 * size) - 1
    choices = [
        0, 1, 2, 16, limit, limit >> 1, old + 1, old - 1, old + 2, old - 2, old * 2,
        old ^ 1 << chance.randrange(8 * size), chance.randrange(base.pages), base.pages,
        base.pages - 1, 1 << chance.randrange(8 * size), chance.randrange(limit + 1), PAGE,
    ]  # fmt: skip
    return chance.choice(choices) & limit


def _field(chance: random.Random, base: Base, offset: int, size: int) -> list[Patch]:
    old = int.from_bytes(base.content[offset : offset + size], "little")
    return [(offset, _number(chance, base, old, size).to_bytes(size, "little"))]


def _header_of_file(chance: random.Random, base: Base) -> list[Patch]:
    places = [(10, 2), (16, 4), (20, 4), (24, 8), (32, 8), (136, 8), (144, 8)]
    for table in (40, 88):
        places += [(table, 4), (table + 4, 2), (table + 6, 2)]
        places += [(table + at, 8) for at in (8, 16, 24, 32, 40)]
    offset, size = chance.choice(places)
    pages = chance.choice([(0,), (1,), (0, 1)])
    return [patch for page in pages for patch in _field(chance, base, page * PAGE + offset, size)]


def _header_of_page(chance: random.Random, base: Base) -> list[Patch]:
    offset, size = chance.choice([(0, 8), (8, 2), (10, 2), (12, 2), (14, 2), (12, 4)])
    return _field(chance, base, chance.randrange(2, base.pages) * PAGE + offset, size)


def _pointer(chance: random.Random, base: Base) -> list[Patch]:
    page = (
        chance.choice(base.nodes) // PAGE if chance.random() < 0.6 else chance.randrange(base.pages)
    )
    return _field(chance, base, page * PAGE + 16 + 2 * chance.randrange(60), 2)


def _node(chance: random.Random, base: Base) -> list[Patch]:
    offset, size = chance.choice([(0, 2), (2, 2), (0, 4), (4, 2), (6, 2)])
    return _field(chance, base, chance.choice(base.nodes) + offset, size)


def _place_of_value(chance: random.Random, base: Base) -> list[Patch]:
    start = chance.choice(base.nodes)
    key_size = struct.unpack_from("<H", base.content, start + 6)[0]
    return _field(chance, base, start + 8 + key_size, 8)


def _any_number(chance: random.Random, base: Base) -> list[Patch]:
    size = chance.choice([1, 2, 4, 8])
    return _field(chance, base, chance.randrange(len(base.content) // 8 - 1) * 8, size)


def _tail_of_page(chance: random.Random, base: Base) -> list[Patch]:
    """Nodes of any page: tables of free pages and branches as well."""
    end = (chance.randrange(2, base.pages) + 1) * PAGE
    offset = end - 2 * chance.randrange(1, 60)
    return _field(chance, base, offset, min(chance.choice([2, 4, 8]), end - offset))


def _bits(chance: random.Random, base: Base) -> list[Patch]:
    patches = []
    for _ in range(chance.choice([1, 2, 4, 40])):
        offset = chance.randrange(base.pages) * PAGE + chance.randrange(chance.choice([160, PAGE]))
        patches.append((offset, bytes([base.content[offset] ^ 1 << chance.randrange(8)])))
    return patches


def _value(chance: random.Random, base: Base) -> list[Patch]:
    """Bytes of a record."""
    start, stop = chance.choice(list(base.own.values()))[1]
    if start == stop:
        return []
    size = chance.choice([1, 1, 1, 2, 4, min(64, stop - start)])
    offset = chance.randrange(start, min(stop, start + chance.choice([40, 4096])))
    return [(offset, chance.randbytes(min(size, stop - offset)))]


def _whole_page(chance: random.Random, base: Base) -> list[Patch]:
    offset, other = (chance.randrange(base.pages) * PAGE for _ in range(2))
    there, here = base.content[other : other + PAGE], base.content[offset : offset + PAGE]
    kind = chance.randrange(4)
    if kind == 0:
        return [(offset, there), (other, here)]
    keeps_number = here[:8] + there[8:]
    return [(offset, [b"", keeps_number, bytes(PAGE), chance.randbytes(PAGE)][kind])]


MUTATIONS = (
    _header_of_file, _header_of_page, _pointer, _node, _place_of_value, _any_number, _tail_of_page,
    _bits, _value, _whole_page,
)  # fmt: skip


def mutate(chance: random.Random, base: Base) -> tuple[bytes, list[Patch]]:
    """The bytes of a damaged file, and what was changed."""
    content = bytearray(base.content)
    patches: list[Patch] = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        records = base.images and chance.random() < 0.8
        patches += (_value if records else chance.choice(MUTATIONS))(chance, base)
    for offset, new in patches:
        content[offset : offset + len(new)] = new
    if chance.random() < 0.04:
        del content[chance.randrange(len(content)) :]
    elif chance.random() < 0.02:
        content += chance.randbytes(chance.randrange(3 * PAGE))
    return bytes(content), patches


def _read(folder: Path) -> Records | str:
    """All records, or the words of the DataError."""
    try:
        with Reader(folder) as reader:
            return dict(iter(reader))
    except DataError as error:
        return str(error)


def _judge(base: Base, content: bytes, read: Records | str) -> str:
    """What a reading of a mutant is."""
    if isinstance(read, str):
        return "refused"
    if read == base.states[-1]:
        return "right"
    if read in base.states:
        return "an earlier state"
    length = min(len(content), len(base.content))
    differs = np.frombuffer(content, np.uint8, length) != np.frombuffer(
        base.content, np.uint8, length
    )
    touched = {
        key
        for key, ranges in base.own.items()
        if any(differs[start:stop].any() for start, stop in ranges)
    }
    states = base.states
    if not (differs[:152].any() or differs[PAGE : PAGE + 152].any()):
        states = states[-1:]
    wrong = [
        key
        for key, value in read.items()
        if key not in touched and value not in [state[key] for state in states if key in state]
    ]
    missing = [key for key in states[-1] if key not in read and key not in touched]
    strange = len([key for key in wrong if key not in states[-1]])
    if len(wrong) - strange or missing or strange > len(touched):
        return "wrong"
    return "its own bytes"


def _append(folder: Path, chance: random.Random, before: Records | str, base: Base) -> str:
    """Add records to a mutant, and read it again."""
    new = dict(_NEW)
    if chance.random() < 0.3:
        replaced = chance.sample(sorted(base.states[-1]), 5)
        new |= {key: b"replaced" * chance.choice([1, 900]) for key in replaced}
    if chance.random() < 0.1:
        (folder / "lock.mdb").write_bytes(chance.randbytes(chance.choice([8, 200, 8192])))
    try:
        with Writer(folder, append=True, commit_every=chance.choice([4, 1000])) as writer:
            for key, value in new.items():
                writer.put(key, value)
    except DataError:
        return "append refused"
    after = _read(folder)
    if isinstance(before, str):
        return "appended, refused before"
    if after != before | new:
        return "wrong after append"
    return "appended" if _is_sound(folder) else "appended, not sound"


def _is_sound(folder: Path) -> bool:
    """What another checker finds in the structure, where it is installed."""
    try:
        from lmdb.verify import verify
    except ImportError:
        return True
    # A value may keep more pages than it needs, and counters of pages are read by nothing.
    harmless = ("mp_pages", "a leak", "record says", "suppressed")
    return all(any(word in problem for word in harmless) for problem in verify(str(folder)))


def _look(folder: Path) -> str:
    """Decode all images of a mutant."""
    try:
        with Reader(folder) as reader:
            return "bad images" if inspect(reader, decode=True).problems else "good images"
    except DataError:
        return "images refused"


def child(name: str, first: int, last: int, folder: Path) -> None:
    """Handle mutants first .. last-1 of a base, and print a line for each."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    base = make_base(name, folder / "base")
    mutant = folder / "mutant"
    mutant.mkdir()
    for number in range(first, last):
        chance = random.Random(f"{name} {number}")
        content, _ = mutate(chance, base)
        (mutant / "data.mdb").write_bytes(content)
        (mutant / "lock.mdb").unlink(missing_ok=True)
        try:
            read = _read(mutant)
            outcomes = [_judge(base, content, read)]
            if base.images:
                outcomes.append(_look(mutant))
            outcomes.append(_append(mutant, chance, read, base))
        except Exception as error:  # noqa: BLE001 - any other than a DataError is a finding
            outcomes = [f"untyped {type(error).__name__}: {error}"[:300].replace("\n", " ")]
        print(number, "; ".join(outcomes), sep="\t", flush=True)


def run(name: str, first: int, last: int) -> Iterator[tuple[int, str]]:
    """Numbers and outcomes of mutants; a process that dies or hangs is replaced by the next."""
    while first < last:
        with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
            command = [
                sys.executable,
                "-m",
                _MODULE,
                "--child",
                name,
                str(first),
                str(last),
                folder,
            ]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
            ) as process:
                for number, outcome in _lines(process):
                    yield number, outcome
                    first = number + 1
                process.kill()
                status = process.wait()
        if first < last:
            yield first, f"signal {-status}" if status != -9 else "hang"
            first += 1


def _lines(process: subprocess.Popen[str]) -> Iterator[tuple[int, str]]:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(_PATIENCE):
            line = process.stdout.readline()
            if not line:
                process.wait()
                return
            number, _, outcome = line.rstrip("\n").partition("\t")
            yield int(number), outcome


def _fast_folder() -> str | None:
    """A folder in memory, where the system has one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def count_outcomes(
    count: int, start: int = 0, names: Sequence[str] = tuple(BASES)
) -> tuple[Counter[str], list[str]]:
    """Outcomes of mutants of some bases, and a line for each that is bad."""
    counter: Counter[str] = Counter()
    bad = []
    each = -(-count // len(names))
    for name in names:
        for number, outcome in run(name, start, start + each):
            counter.update(part.split(":")[0] for part in outcome.split("; "))
            if any(word in outcome for word in BAD):
                bad.append(f"{name} {number}: {outcome}")
    return counter, bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, first, last, folder = args.child
        child(name, int(first), int(last), Path(folder))
        return 0
    begin = time.monotonic()
    counter, bad = count_outcomes(args.count, args.start)
    for outcome, count in counter.most_common():
        print(f"{count:8d} {outcome}")
    print(*bad[:50], sep="\n")
    print(f"{args.count} mutants in {time.monotonic() - begin:.0f} s, {len(bad)} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
