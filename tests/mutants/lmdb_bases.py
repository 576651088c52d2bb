"""Valid databases of several kinds, and damage to their pages, nodes and records."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep import datum
from data_prep.lmdb_file import PageFile
from data_prep.lmdb_io import Writer
from data_prep.lmdb_pages import LEAF, check_values, read_nodes, value_offsets
from data_prep.lmdb_tree import leaf_pages
from tests.data_prep.small_images import photograph, record

PAGE = 4096
Records = dict[bytes, bytes]
Patch = tuple[int, bytes]


@dataclass
class Base:
    """A valid database: its bytes, its committed states, and the bytes of each record."""

    content: bytes
    images: bool = False
    states: list[Records] = field(default_factory=list)
    own: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)
    """Ranges of the file without redundancy: node, key and value of a record."""
    nodes: list[int] = field(default_factory=list)
    """The offsets of the nodes of records."""

    @property
    def pages(self) -> int:
        """The number of pages in the file."""
        return len(self.content) // PAGE


def _small(put: Callable[[Records], None], chance: random.Random) -> None:
    """Two levels of pages, with keys added in random order."""
    keys = [b"%08d_n%08d/%d.JPEG" % (n, n % 10, n) for n in range(600)]
    chance.shuffle(keys)
    for start in range(0, 600, 200):
        put({key: key[:8] * 4 for key in keys[start : start + 200]})


def _deep(put: Callable[[Records], None], chance: random.Random) -> None:
    """Four levels of pages, with long keys."""
    keys = [b"%04d" % n * chance.randrange(60, 125) for n in range(160)]
    chance.shuffle(keys)
    for start in range(0, 160, 80):
        put({key: key[:40] for key in keys[start : start + 80]})


def _mixed(put: Callable[[Records], None], chance: random.Random) -> None:
    """Values in nodes and on separate pages, some of them replaced, which frees pages."""
    put({b"%08d_x" % n: bytes([n]) * (50 + 60 * n) for n in range(90)})
    put({b"%08d_x" % n: bytes([n]) * (90 + 100 * n) for n in range(0, 90, 3)})
    put({b"%08d_x" % n: bytes([n]) * 70 for n in range(0, 90, 9)})


def _freed(put: Callable[[Records], None], chance: random.Random) -> None:
    """A list of free pages that occupies separate pages."""
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
    """Write a valid database in several commits."""
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
    """A replacement of a number: near it, the number of another page, or a limit."""
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
        places += [(table + field, 8) for field in (8, 16, 24, 32, 40)]
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
    """Nodes of any page, including tables of free pages and branches."""
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


_DAMAGES = (
    _header_of_file, _header_of_page, _pointer, _node, _place_of_value, _any_number, _tail_of_page,
    _bits, _value, _whole_page,
)  # fmt: skip


def damage_base(chance: random.Random, base: Base) -> bytes:
    """The bytes of a damaged file."""
    content = bytearray(base.content)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        records = base.images and chance.random() < 0.8
        for offset, new in (_value if records else chance.choice(_DAMAGES))(chance, base):
            content[offset : offset + len(new)] = new
    if chance.random() < 0.04:
        del content[chance.randrange(len(content)) :]
    elif chance.random() < 0.02:
        content += chance.randbytes(chance.randrange(3 * PAGE))
    return bytes(content)
