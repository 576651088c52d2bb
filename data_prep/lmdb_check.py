"""Proves an LMDB file sound before liblmdb maps it, and lists its keys on the way.

liblmdb trusts the file: a truncated or bit-flipped database ends the process with SIGBUS, SIGSEGV
or a failed assertion instead of an error. So the tree's pages are walked here first, within bounds:
the file is as long as its header says, every branch and leaf page is what it claims to be, every
node and every value lies inside. Values are not read; their damage shows when they are parsed.

Format: LMDB 0.9 (data version 1), 64-bit, little-endian; one unnamed table without duplicates,
which is what Caffe writes.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DataError

_MAGIC = 0xBEEFC0DE
_META, _BRANCH, _LEAF = 0x08, 0x01, 0x02
_KIND = 0x7F & ~0x10  # page flags without the dirty bit
_HEADER = 16
_NODE = 8
_BIGDATA = 0x01
_NO_ROOT = 0xFFFFFFFFFFFFFFFF
_MAX_DEPTH = 32


class _DamageError(Exception):
    """What is wrong with the file, in words."""


@dataclass(frozen=True)
class _Meta:
    page_size: int
    depth: int
    entries: int
    root: int
    last_page: int
    txnid: int


class KeyTable:
    """Keys in the order of the database, packed: a million keys cost about 50 MB, not 200.

    It knows as well where in data.mdb each value lies. Shapes: places (records, 2): offset, size.
    """

    def __init__(
        self, packed: bytes, ends: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
    ) -> None:
        self._packed = packed
        self._ends = ends
        self._places = places

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self._ends):
            raise IndexError(f"key {index} of {len(self._ends)}")
        start = int(self._ends[index - 1]) if index else 0
        return self._packed[start : int(self._ends[index])]

    def place(self, index: int) -> tuple[int, int]:
        """Where the value of a record begins in the file, and how many bytes it has."""
        offset, size = self._places[index].tolist()
        return offset, size

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))


def check_and_list_keys(folder: Path) -> KeyTable:
    """Walk the database in `folder` and return its keys.

    Raises:
        DataError: the file is not an LMDB, is truncated, or holds a damaged page.
    """
    path = folder / "data.mdb"
    try:
        with path.open("rb") as stream:
            if path.stat().st_size < 2 * _HEADER:
                raise _DamageError("the file is empty or shorter than a header")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Walk(data).run()
    except _DamageError as damage:
        raise DataError(
            f"{folder}: corrupt LMDB: {damage}; expected a whole database of convert_imageset; "
            "copy it again, or make it again"
        ) from None
    except OSError as cause:
        raise DataError(
            f"{path}: cannot be read: {cause.strerror}; check the path and its permissions"
        ) from cause


def _read_meta(data: mmap.mmap, offset: int) -> _Meta | None:
    if offset + 152 > len(data):
        return None
    flags, magic, version = struct.unpack_from("<10xH4xII", data, offset)
    if not flags & _META or magic != _MAGIC or version != 1:
        return None
    (page_size,) = struct.unpack_from("<I", data, offset + 40)
    depth, entries, root, last_page, txnid = struct.unpack_from("<H24x4Q", data, offset + 94)
    return _Meta(page_size, depth, entries, root, last_page, txnid)


class _Walk:
    """One depth-first walk over the pages of the main table."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.meta = self._newest_meta()
        self.keys: list[bytes] = []
        self.places: list[npt.NDArray[np.int64]] = [np.empty((0, 2), np.int64)]

    def _newest_meta(self) -> _Meta:
        first = _read_meta(self.data, 0)
        if first is None:
            raise _DamageError("data.mdb does not begin with an LMDB 0.9 header")
        size = first.page_size
        if size < 256 or size > 1 << 16 or size & (size - 1):
            raise _DamageError(f"the header claims pages of {size} bytes")
        second = _read_meta(self.data, size)
        if second is None or second.page_size != size:
            raise _DamageError("its two headers contradict each other")
        newest = second if second.txnid > first.txnid else first
        needed = (newest.last_page + 1) * size
        if newest.last_page < 1 or needed > len(self.data):
            raise _DamageError(f"data.mdb has {len(self.data)} bytes of {needed}: it is truncated")
        return newest

    def run(self) -> KeyTable:
        if self.meta.root != _NO_ROOT:
            if not 1 <= self.meta.depth <= _MAX_DEPTH:
                raise _DamageError(f"the header claims a tree of depth {self.meta.depth}")
            self._page(self.meta.root, 1)
        if len(self.keys) != self.meta.entries:
            raise _DamageError(f"{len(self.keys)} records found of {self.meta.entries}")
        ends = np.cumsum(np.fromiter(map(len, self.keys), np.int64, len(self.keys)))
        return KeyTable(b"".join(self.keys), ends, np.concatenate(self.places))

    def _page(self, number: int, level: int) -> None:
        if not 2 <= number <= self.meta.last_page:
            raise _DamageError(f"page {number} lies outside the file")
        size = self.meta.page_size
        page = self.data[number * size : (number + 1) * size]
        own_number, flags, lower, upper = struct.unpack_from("<Q2xHHH", page)
        kind = _LEAF if level == self.meta.depth else _BRANCH
        if own_number != number or flags & _KIND != kind:
            raise _DamageError(f"page {number} is overwritten")
        if not _HEADER < lower <= upper <= size or lower % 2:
            raise _DamageError(f"page {number} has impossible bounds")
        pointers = np.frombuffer(page, "<u2", (lower - _HEADER) // 2, _HEADER).astype(np.int64)
        if pointers.min() < upper or pointers.max() > size - _NODE or (pointers & 1).any():
            raise _DamageError(f"a node of page {number} lies outside it")
        node = np.frombuffer(page, "<u2").astype(np.int64)
        low, high, node_flags, key_size = (node[pointers // 2 + word] for word in range(4))
        key_ends = pointers + _NODE + key_size
        if key_ends.max() > size:
            raise _DamageError(f"a key of page {number} lies outside it")
        if kind == _BRANCH:
            for child in (low | high << 16 | node_flags << 32).tolist():
                self._page(child, level + 1)
        else:
            self._values(page, number, key_ends, low | high << 16, node_flags)
            self._add_keys(page, pointers, key_ends, number)

    def _values(
        self,
        page: bytes,
        number: int,
        starts: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
        flags: npt.NDArray[np.int64],
    ) -> None:
        size = self.meta.page_size
        if (flags & ~_BIGDATA).any():
            raise _DamageError(f"page {number} holds a sub-table; Caffe's databases have none")
        big = (flags & _BIGDATA) != 0
        if (starts + np.where(big, 8, sizes)).max() > size:
            raise _DamageError(f"a value of page {number} lies outside it")
        offsets = number * size + starts
        for index in np.flatnonzero(big).tolist():
            (first,) = struct.unpack_from("<Q", page, int(starts[index]))
            last = first + (_HEADER + int(sizes[index]) - 1) // size
            if first < 2 or last > self.meta.last_page:
                raise _DamageError(f"a value of page {number} lies outside the file")
            offsets[index] = first * size + _HEADER
        self.places.append(np.stack([offsets, sizes], axis=1))

    def _add_keys(
        self,
        page: bytes,
        pointers: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        number: int,
    ) -> None:
        previous = self.keys[-1] if self.keys else None
        for start, end in zip((pointers + _NODE).tolist(), ends.tolist(), strict=True):
            key = page[start:end]
            # Also ends a walk over pages that point at each other.
            if not key or (previous is not None and key <= previous):
                raise _DamageError(f"the keys of page {number} are out of order")
            self.keys.append(key)
            previous = key
