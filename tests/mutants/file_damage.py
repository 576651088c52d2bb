"""Damage to files with an inner structure: HDF5, LMDB, zip archives, images."""

from __future__ import annotations

import functools
import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence

from tests.mutants.damage import damage, put_integer
from tests.mutants.text_damage import text_damage

PAGE = 4096
_HDF5_MARKS = re.compile(rb"TREE|HEAP|SNOD|GCOL|OHDR|FRHP|FHDB|\x89HDF")
_META_FIELDS = (
    (16, 4), (20, 4), (24, 8), (32, 8), (40, 4), (44, 2), (46, 2), (48, 8), (56, 8), (64, 8),
    (72, 8), (80, 8), (88, 4), (92, 2), (94, 2), (96, 8), (104, 8), (112, 8), (120, 8), (128, 8),
    (136, 8), (144, 8),
)  # fmt: skip
_PAGE_FIELDS = ((0, 8), (8, 2), (10, 2), (12, 2), (14, 2), (12, 4))
_META_PAGES = 2
_ARRAY_TEXT = text_damage(
    (b"'<f4'", b"'|O'", b"'<U9'", b"'|S0'", b"'>f8'", b"True", b"(2,)", b"()")
)


@functools.lru_cache(64)
def _hdf5_places(data: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Offsets of probable addresses or sizes of 8 bytes, and of the begins of blocks."""
    limits = (0, len(data))
    addresses = tuple(
        place
        for place in range(0, len(data) - 7, 8)
        if limits[0] < struct.unpack_from("<Q", data, place)[0] <= limits[1]
    )
    return addresses, tuple(match.start() for match in _HDF5_MARKS.finditer(data))


def hdf5_damage(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
    """A file with wrong addresses, sizes or block heads, or damaged as bytes."""
    if rng.random() < 0.4:
        return damage(rng, sample, others)
    addresses, blocks = _hdf5_places(sample)
    data = bytearray(sample)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.4 and addresses:
            place = rng.choice(addresses)
            targets = (0, 1, len(data), len(data) - 1, place, (1 << 64) - 1, 1 << 62, 1 << 31)
            value = rng.choice((*targets, rng.choice(blocks or (0,)), rng.choice(addresses)))
            struct.pack_into("<Q", data, place, value & (1 << 64) - 1)
        elif blocks:
            start = rng.choice(blocks) + rng.randrange(160)
            if rng.random() < 0.5 and start < len(data):
                data[start] ^= 1 << rng.randrange(8)
            else:
                put_integer(rng, data, start, rng.choice((1, 2, 4, 8)))
    return bytes(data[: max(len(sample), 1)])


def lmdb_damage(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
    """A data.mdb with wrong page heads, nodes, roots or free lists, or damaged as bytes."""
    if rng.random() < 0.15:
        return damage(rng, sample, others)
    data = bytearray(sample)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _damage_page(rng, data)
    return bytes(data)


def _damage_page(rng: random.Random, data: bytearray) -> None:
    pages = max(len(data) // PAGE, 1)
    page = rng.randrange(pages) if rng.random() < 0.5 else _important_page(rng, data, pages)
    start, kind = page * PAGE, rng.random()
    if kind < 0.04:
        del data[rng.randrange(pages + 1) * PAGE + rng.choice((0, 0, 17)) :]
    elif kind < 0.09:
        other = rng.randrange(pages) * PAGE
        data[start : start + PAGE] = data[other : other + PAGE]
    elif kind < 0.11:
        data.extend(bytes(rng.choice((1, PAGE, 5 * PAGE))))
    elif kind < 0.45:
        fields = _META_FIELDS if page < _META_PAGES else _PAGE_FIELDS
        offset, width = rng.choice(fields)
        _put_field(rng, data, start + offset, width, pages)
    elif len(data) >= start + PAGE:
        _damage_node(rng, data, start, pages)


def _important_page(rng: random.Random, data: bytearray, pages: int) -> int:
    """One of the two heads, or a root in a head: that of the free pages or of the records."""
    page = rng.randrange(_META_PAGES)
    root_at = page * PAGE + rng.choice((80, 128))
    if rng.random() < 0.3 or len(data) < root_at + 8:
        return page
    (root,) = struct.unpack_from("<Q", data, root_at)
    return int(root) if root < pages else page


def _damage_node(rng: random.Random, data: bytearray, start: int, pages: int) -> None:
    """Change a pointer, the head of a node, or the data after it: keys, pages, free lists."""
    (lower,) = struct.unpack_from("<H", data, start + 12)
    nodes = min(max((lower - 16) // 2, 1), 200)
    slot = start + 16 + 2 * rng.randrange(nodes)
    if rng.random() < 0.25:
        _put_field(rng, data, slot, 2, pages)
        return
    (pointer,) = struct.unpack_from("<H", data, slot)
    node = start + min(pointer, PAGE - 8)
    offset, width = rng.choice(((0, 2), (2, 2), (4, 2), (6, 2), (8, 8), (16, 8), (24, 8), (32, 8)))
    _put_field(rng, data, node + offset, width, pages)


def _put_field(rng: random.Random, data: bytearray, start: int, width: int, pages: int) -> None:
    if start + width > len(data):
        return
    if rng.random() < 0.4:
        value = rng.choice((rng.randrange(pages + 2), 16, PAGE, PAGE - 16, pages))
        data[start : start + width] = value.to_bytes(8, "little")[:width]
    elif rng.random() < 0.2:
        data[start + rng.randrange(width)] ^= 1 << rng.randrange(8)
    else:
        put_integer(rng, data, start, width)


@functools.lru_cache(32)
def members(data: bytes) -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return tuple((name, file.read(name)) for name in file.namelist())


def npz_damage(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
    """A valid archive of damaged arrays, or an archive damaged as bytes."""
    if rng.random() < 0.4:
        return damage(rng, sample, others)
    parts = list(members(sample))
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(parts))
        name, content = parts[place]
        kind = rng.random()
        if kind < 0.15:
            names = (
                "",
                "x",
                "a/0.npy",
                "a/-1.npy",
                "/0.npy",
                "../0.npy",
                "a/9" + "9" * 20 + ".npy",
            )
            parts[place] = (rng.choice((*names, parts[0][0])), content)
        elif kind < 0.25:
            parts.insert(place, rng.choice(members(rng.choice(others))))
        elif kind < 0.6:
            parts[place] = (name, _array_header(rng, content, others))
        else:
            parts[place] = (name, damage(rng, content, [content]))
    return zipped(parts, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _array_header(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """An .npy file with changed words in its header, and the correct length of the header."""
    if len(content) < 10:
        return content
    (size,) = struct.unpack_from("<H", content, 8)
    header = _ARRAY_TEXT(rng, content[10 : 10 + size], others)[:60000]
    return content[:8] + struct.pack("<H", len(header)) + header + content[10 + size :]


def zipped(parts: Sequence[tuple[str, bytes]], compression: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in parts:
            # Without a time, so that the same members give the same bytes.
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            file.writestr(info, content)
    return stream.getvalue()


def image_damage(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
    """An image with another size in its head, stray bytes between segments, or damaged as bytes."""
    kind = rng.random()
    if kind < 0.5:
        return damage(rng, sample, others)
    data = bytearray(sample)
    if sample[:2] == b"\xff\xd8":
        _damage_jpeg(rng, data)
    elif sample[:4] == b"\x89PNG":
        _damage_png(rng, data)
    elif sample[:1] == b"P":
        return text_damage()(rng, sample[:20], others) + sample[20:]
    else:
        for _ in range(rng.choice((1, 1, 2, 3))):
            put_integer(rng, data, rng.randrange(min(64, len(data))), rng.choice((1, 2, 4)))
    return bytes(data)


def _damage_jpeg(rng: random.Random, data: bytearray) -> None:
    marks = [m.start() for m in re.finditer(rb"\xff[\xc0-\xc2\xc4\xda-\xdd\xe0-\xef\xfe]", data)]
    for _ in range(rng.choice((1, 1, 2))):
        mark = rng.choice(marks)
        if rng.random() < 0.3:
            data[mark:mark] = rng.choice((b"\0", b"\xff", b"\x01\x02", b"\xff\xff\xff"))
            return
        put_integer(rng, data, mark + rng.choice((1, 2, 4, 5, 7, 9, 10)), rng.choice((1, 2)))


def _damage_png(rng: random.Random, data: bytearray) -> None:
    """Change a chunk, and correct its checksum."""
    starts, start = [], 8
    while start + 12 <= len(data):
        starts.append(start)
        start += 12 + int.from_bytes(data[start : start + 4], "big")
    start = rng.choice(starts)
    size = int.from_bytes(data[start : start + 4], "big")
    if size:
        put_integer(rng, data, start + 8 + rng.randrange(size), rng.choice((1, 2, 4)))
    checksum = zlib.crc32(data[start + 4 : start + 8 + size])
    struct.pack_into(">I", data, start + 8 + size, checksum)
