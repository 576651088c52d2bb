"""An LMDB file, read without liblmdb: its bytes, and the states that its headers describe.

liblmdb trusts its file: a damaged number in a page ends the process with a signal, and so does a
file that is cut short while it is mapped. Here the file is read with `pread`, which also is safe in
threads and after a fork, and which needs none of the locks that belong to liblmdb: the same process
may have the database open with liblmdb as well.

A program that writes the database changes no page of a committed state before two more states have
been committed. So what was read of a state is whole if the headers, read after it, are at most one
state further.

Format: LMDB 0.9 (data version 1), 64-bit, little-endian.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.errors import DataError

HEADER = 16
"""Bytes of a page before its pointers or its value."""
NO_ROOT = (1 << 64) - 1
MOST_PAGES = 1 << 47

_META = 0x08
_MAGIC = 0xBEEFC0DE
_META_END = 152
_MAX_DEPTH = 32
_PAGE_SIZES = tuple(1 << power for power in range(8, 16))
_ATTEMPTS = 1000


class DamageError(Exception):
    """What is wrong with the file; callers turn it into a DataError that names the database."""


class TruncatedError(DamageError):
    """The file ends before something that belongs to it."""

    def __init__(self, length: int, needed: int) -> None:
        super().__init__(f"data.mdb has {length} bytes of {needed}: it is truncated")
        self.length = length


class KindError(DamageError):
    """The database is one that Caffe does not read."""


def corrupt(folder: Path, damage: DamageError) -> DataError:
    """The error that is shown for a damaged database, or one of another kind."""
    if isinstance(damage, KindError):
        return DataError(
            f"{folder}: not a database of Caffe: {damage}; expected LMDB 0.9 with one record for "
            "each key in the main database; copy the records to such a database"
        )
    return DataError(
        f"{folder}: corrupt LMDB: {damage}; expected a whole database of convert_imageset; "
        "copy it again, or make it again"
    )


def changes_too_fast(folder: Path) -> DataError:
    """The error for a database that does not keep still for long enough."""
    return DataError(
        f"{folder}: another program changes the database faster than it can be read; wait until "
        "that program has ended"
    )


@dataclass(frozen=True)
class Table:
    """A B-tree: its flags, depth, number of records and root page."""

    pad: int
    flags: int
    depth: int
    entries: int
    root: int


@dataclass(frozen=True)
class Meta:
    """A committed state of the database: the table of free pages and the table of records."""

    page_size: int
    free: Table
    main: Table
    last_page: int
    txnid: int


class PageFile:
    """The file data.mdb of a folder, open for reading; every method may be called from any thread.

    Raises:
        DataError: the file cannot be opened or read.
        DamageError: it does not begin with a header of LMDB 0.9 for 64 bits.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "data.mdb"
        try:
            self._stream = path.open("rb", buffering=0)
        except OSError as cause:
            raise DataError(
                f"{path}: cannot be read: {cause.strerror}; check the path and its permissions"
            ) from cause
        self._descriptor = self._stream.fileno()
        self.page_size = self._page_size()

    def _page_size(self) -> int:
        if self.length() < _META_END:
            raise DamageError("the file is empty or shorter than a header")
        head = self.read(0, _META_END)
        flags, magic, version = struct.unpack_from("<10xH4xII", head)
        if not flags & _META or magic != _MAGIC:
            raise DamageError("data.mdb does not begin with an LMDB 0.9 header")
        if version != 1:
            raise KindError(f"its format has version {version} where LMDB 0.9 has 1")
        page_size = _read_table(head, 40).pad
        if page_size not in _PAGE_SIZES:
            raise DamageError(f"the header claims pages of {page_size} bytes")
        return page_size

    def length(self) -> int:
        """The size of the file in bytes now."""
        return os.lseek(self._descriptor, 0, os.SEEK_END)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file.

        Raises:
            TruncatedError: it ends before them.
        """
        try:
            data = os.pread(self._descriptor, size, offset)
            while len(data) < size:
                more = os.pread(self._descriptor, size - len(data), offset + len(data))
                if not more:
                    raise TruncatedError(self.length(), offset + size)
                data += more
        except OSError as cause:
            raise DataError(
                f"{self.folder}: data.mdb cannot be read: {cause.strerror}; look at the disk; the "
                "last snapshot is intact"
            ) from cause
        return data

    def page(self, number: int) -> bytes:
        """One page."""
        return self.read(number * self.page_size, self.page_size)

    def headers(self) -> bytes:
        """The pages of both headers; every commit changes one of them."""
        return self.read(0, self.page_size + _META_END)

    def newest(self) -> tuple[Meta, bytes]:
        """The newest committed state, and the headers that describe it.

        Raises:
            DamageError: a header is damaged.
        """
        headers = self.headers()
        for _ in range(_ATTEMPTS):
            again = self.headers()
            if again == headers:  # not within a write of one of them
                break
            headers = again
        return _newest(headers, self.page_size), headers

    def keeps(self, meta: Meta) -> bool:
        """Whether the pages of a state are still those that it was committed with."""
        return self.newest()[0].txnid in (meta.txnid, meta.txnid + 1)


def _newest(headers: bytes, page_size: int) -> Meta:
    first, second = (_read_meta(headers, offset) for offset in (0, page_size))
    if first is None or second is None or {first.page_size, second.page_size} != {page_size}:
        raise DamageError("its two headers contradict each other")
    parity = int(second.txnid > first.txnid)
    newest, other = (second, first) if parity else (first, second)
    # Commit N writes header N % 2; the other header is that of commit N - 1.
    expected = max(newest.txnid - 1, 0)
    if newest.txnid % 2 != parity or other.txnid != expected or newest.txnid >= NO_ROOT // 2:
        raise DamageError("its two headers contradict each other")
    if not 1 <= newest.last_page < MOST_PAGES:
        raise DamageError(f"the header claims {newest.last_page + 1} pages")
    return newest


def _read_meta(headers: bytes, offset: int) -> Meta | None:
    flags, magic, version = struct.unpack_from("<10xH4xII", headers, offset)
    if not flags & _META or magic != _MAGIC or version != 1:
        return None
    free, main = (_read_table(headers, offset + place) for place in (40, 88))
    last_page, txnid = struct.unpack_from("<QQ", headers, offset + 136)
    return Meta(free.pad, free, main, last_page, txnid)


def _read_table(headers: bytes, offset: int) -> Table:
    return Table(*struct.unpack_from("<IHH24xQQ", headers, offset))


def check_main_table(meta: Meta) -> None:
    """Check that records are kept as in Caffe's databases.

    Raises:
        KindError: keys may be duplicates or have another order.
        DamageError: the tree is impossible.
    """
    if meta.main.flags:
        raise KindError(
            f"it has the flags {meta.main.flags:#x}, for duplicates of a key or another order"
        )
    check_depth(meta.main)


def check_depth(table: Table) -> None:
    """Check the depth of a tree against its root."""
    if (table.root == NO_ROOT) != (table.depth == 0) or table.depth > _MAX_DEPTH:
        raise DamageError(f"the header claims a tree of depth {table.depth}")
