"""An LMDB file, read without liblmdb: its bytes, and the states that its headers describe.

liblmdb does not check its file: a damaged number in a page, or a file that is cut short while it is
mapped, ends the process with a signal. Here the file is read with `pread`, which is safe in threads
and after a fork and needs no lock of liblmdb, so the same process may have the database open with
liblmdb.

A writer does not change the pages of a committed state before it has committed two more states. So
what was read of a state is consistent if the headers that are read after it are at most one state
newer.

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

OVERFLOW = 0x04
KIND = 0x6F
"""The flags of a page that are its kind; the others mark pages of a transaction."""

_META = 0x08
_MAGIC = 0xBEEFC0DE
_META_END = 152
_MAX_DEPTH = 32
_PAGE_SIZES = tuple(1 << power for power in range(8, 16))
_ATTEMPTS = 1000
_LARGE = 1 << 20
_VALUE_HEAD = struct.Struct("<Q2xHI")


class DamageError(Exception):
    """The file is damaged; callers convert it to a DataError with the name of the database."""


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
    """The error for a database that another program changes too often."""
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

    def value(self, offset: int, size: int) -> bytes:
        """The value at a place in the file, after a header if it has pages of its own.

        Raises:
            DamageError: the pages are not those of this value, or the file has been cut short.
        """
        number, before = divmod(offset, self.page_size)
        if before != HEADER:
            return self.read(offset, size)
        if size > _LARGE and offset + size > self.length():  # before memory is allocated for it
            raise TruncatedError(self.length(), offset + size)
        data = self.read(offset - HEADER, HEADER + size)
        check_value_header(data, number, (HEADER - 1 + size) // self.page_size + 1)
        return data[HEADER:]

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
            if again == headers:  # else one of them is being written
                break
            headers = again
        return _newest(headers, self.page_size), headers

    def keeps(self, meta: Meta) -> bool:
        """Whether no page of a state has been overwritten."""
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


def check_value_header(header: bytes, number: int, count: int) -> int:
    """Check the header of a value that has pages of its own; returns their number.

    There may be more pages than its size needs: a value that is replaced by a shorter one in the
    same transaction keeps its pages.

    Raises:
        DamageError: the header is not that of page `number` with at least `count` pages.
    """
    own_number, flags, pages = _VALUE_HEAD.unpack_from(header)
    if own_number != number or flags & KIND != OVERFLOW or pages < count:
        raise DamageError(f"page {number} is overwritten")
    return int(pages)


def check_folder(folder: Path) -> Path:
    """Return the path of data.mdb.

    Raises:
        DataError: the folder does not exist, or has another kind of database.
    """
    file = folder / "data.mdb"
    try:
        if not folder.exists():
            raise DataError(
                f"{folder}: no such database; expected a folder with data.mdb; "
                "make it with `verydeep convert_imageset`"
            )
        if not folder.is_dir():
            raise DataError(f"{folder}: a file; expected the folder that holds data.mdb")
        if file.is_file():
            return file
        if (folder / "CURRENT").exists() or any(folder.glob("MANIFEST-*")):
            raise DataError(
                f"{folder}: a LevelDB database; expected LMDB; make it again from the images with "
                "`verydeep convert_imageset --backend lmdb`, and set `backend: LMDB` in data_param"
            )
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise DataError(
            f"{folder}: cannot be opened: {reason}; check the path and its permissions"
        ) from cause
    raise DataError(
        f"{folder}: not an LMDB database: there is no data.mdb in it; "
        "make it with `verydeep convert_imageset`"
    )
