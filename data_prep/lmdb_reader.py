"""Reading LMDB databases by position, without liblmdb: the index of the records and the reader.

The index has the number of every leaf page with the position of its first record, a hash of every
key, and about every 32nd key: some 6 bytes for each record. Databases of many small records also
have a table of all keys and places, which makes reading faster.

Readers take no lock, so the same process may have the database open with liblmdb, and they continue
in child processes after a fork. Their records are those of the keys that the database had when it
was opened. If another program changes the database, a record is found by its key: the nearest key
before it leads to the page, and its hash identifies it. A record that was replaced is read in its
new version, and one that was removed is an error.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.db_record import check_complete
from data_prep.lmdb_file import (
    HEADER,
    DamageError,
    Meta,
    PageFile,
    TruncatedError,
    changes_too_fast,
    check_folder,
    check_main_table,
    corrupt,
)
from data_prep.lmdb_pages import (
    LEAF,
    Ints,
    Node,
    Nodes,
    check_records,
    check_values,
    count_nodes,
    leaf_node,
    packed,
    read_value,
    unsigned,
    value_offsets,
)
from data_prep.lmdb_tree import (
    check_in_use,
    check_once,
    hash_key,
    hash_ordered_keys,
    leaf_pages,
    leaves_from,
    read_chunks,
    readable_free_pages,
)
from prototxt_gen.errors import DataError

_ANCHOR_EVERY = 32
_TABLE_BYTES = 32 << 20
"""Memory for a table of all keys and places."""
_TABLE_RECORD = 16
"""Bytes of a record in the table without its key."""
_ATTEMPTS = 1000
_FINDS, _PART = 1000, 100
"""A new index is built after so many records were found by key, or this part of all."""


class _ChangedError(Exception):
    """Another program has changed the database since a state was read."""


@dataclass(frozen=True)
class RecordTable:
    """All keys and the positions of all values. Shapes: offsets, sizes, key_ends (records,)."""

    offsets: memoryview
    sizes: memoryview
    key_ends: memoryview
    keys: bytes

    def key(self, index: int) -> bytes:
        """The key of a record."""
        return self.keys[self.key_ends[index - 1] if index else 0 : self.key_ends[index]]

    def place(self, index: int) -> tuple[int, int]:
        """The position of a value in the file, and its size. Units: bytes."""
        return self.offsets[index], self.sizes[index]


@dataclass(frozen=True)
class RecordIndex:
    """The positions of records in a committed state of the database.

    `headers` are those of this state. `pages` are the numbers of leaf pages, `starts` the positions
    of their first records and the number of all records; `anchor_keys` are the keys of the records
    at `anchors`, in order, and `last_key` is the key of the last record.

    Shapes: pages (leaves,), starts (leaves + 1,), hashes (records,), anchors (anchors,).
    """

    headers: bytes
    pages: memoryview
    starts: memoryview
    hashes: memoryview
    anchors: memoryview
    anchor_keys: list[bytes]
    last_key: bytes
    table: RecordTable | None

    def __len__(self) -> int:
        return len(self.hashes)

    def kept_key(self, index: int) -> bytes | None:
        """The key of a record; None if the index has no table of keys."""
        return None if self.table is None else self.table.key(index)

    def key(self, file: PageFile, index: int) -> bytes:
        """The key of a record in the state of the index."""
        return self._node(file, index)[1].key

    def value(self, file: PageFile, index: int) -> bytes:
        """The value of a record in the state of the index.

        Raises:
            DamageError: the page of the record or its value is damaged.
        """
        if self.table is None:
            return read_value(file, *self._node(file, index))
        return file.value(*self.table.place(index))

    def _node(self, file: PageFile, index: int) -> tuple[bytes, Node]:
        leaf = bisect_right(self.starts, index) - 1
        number = self.pages[leaf]
        page = file.page(number)
        entry = index - self.starts[leaf]
        if entry >= count_nodes(page, number, LEAF):
            raise DamageError(f"page {number} is overwritten")
        return page, leaf_node(page, entry)

    def find(self, file: PageFile, meta: Meta, index: int) -> tuple[bytes, Node] | None:
        """The leaf page and the node of a record in another state; None if its key is gone."""
        anchor = bisect_right(self.anchors, index) - 1
        start = self.anchor_keys[anchor]
        last = anchor + 1 == len(self.anchor_keys)
        end = self.last_key + b"\0" if last else self.anchor_keys[anchor + 1]
        key_hash = self.hashes[index]
        before = index - self.anchors[anchor]
        for leaf in leaves_from(file, meta, start):
            if leaf.entry + before < leaf.count:
                node = leaf_node(leaf.page, leaf.entry + before)
                if hash_key(node.key) == key_hash and start <= node.key < end:
                    return leaf.page, node
                break
            before -= leaf.count - leaf.entry
        for leaf in leaves_from(file, meta, start):
            for entry in range(leaf.entry, leaf.count):
                node = leaf_node(leaf.page, entry)
                if node.key >= end:
                    return None
                if hash_key(node.key) == key_hash:
                    return leaf.page, node
        return None


def build_index(file: PageFile) -> RecordIndex:
    """Read all leaf pages of a database, while another program may write to it.

    Raises:
        DamageError: the database is damaged.
        DataError: it changes faster than it can be read.
    """
    builder = _Builder(file)
    for _ in range(_ATTEMPTS):
        meta, headers = file.newest()
        try:
            return builder.read(meta, headers)
        except _ChangedError:
            continue
    raise changes_too_fast(file.folder)


class _Table:
    """Collects a RecordTable of an expected number of records, if it fits into the memory limit."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._offsets: list[Ints] = []
        self._sizes: list[npt.NDArray[np.uint32]] = []
        self._key_sizes: list[npt.NDArray[np.uint16]] = []
        self._keys: list[bytes] = []
        self._bytes = 0

    def add(self, nodes: Nodes, offsets: Ints) -> bool:
        """Add records; returns whether all will fit, if the other keys are as long."""
        count, new = len(offsets), _TABLE_RECORD * len(offsets) + int(nodes.key_sizes.sum())
        self._bytes += new
        if max(self._bytes, self._expected * new // count) > _TABLE_BYTES:
            return False
        self._offsets.append(offsets)
        self._sizes.append(nodes.words.astype(np.uint32))
        self._key_sizes.append(nodes.key_sizes.astype(np.uint16))
        self._keys.append(nodes.keys())
        return True

    def finish(self) -> RecordTable:
        """The table of all records that were added."""
        none = np.empty(0, np.int64)
        sizes = np.concatenate([none.astype(np.uint32), *self._sizes])
        ends = np.cumsum(
            np.concatenate([none.astype(np.uint16), *self._key_sizes]), dtype=np.uint32
        )
        offsets = np.concatenate([none, *self._offsets])
        keys = b"".join(self._keys)
        return RecordTable(offsets.data, sizes.data, ends.data, keys)


class _Builder:
    """Collects the index chunk by chunk; after a change it continues from the last key."""

    def __init__(self, file: PageFile) -> None:
        self._file = file
        self._count = 0
        self._last_key: bytes | None = None
        self._whole = True
        self._pages: list[Ints] = []
        self._starts: list[Ints] = []
        self._hashes: list[npt.NDArray[np.uint32]] = []
        self._anchors: list[int] = []
        self._anchor_keys: list[bytes] = []
        self._table: _Table | None = None
        self._value_pages: list[npt.NDArray[np.unsignedinteger[Any]]] = []

    def read(self, meta: Meta, headers: bytes) -> RecordIndex:
        """Read the leaf pages of a state, starting after the last key.

        Raises:
            DamageError: the database is damaged.
            _ChangedError: the state has been overwritten.
        """
        try:
            check_main_table(meta)
            if self._whole:
                self._table = _Table(meta.main.entries)
            free = readable_free_pages(self._file, meta)
            pages, read = self._rest(meta, leaf_pages(self._file, meta, meta.main))
            check_in_use(free, pages)
            for nodes in read_chunks(self._file, pages, LEAF, meta):
                self._add(nodes, self._values(nodes, meta, free), read, meta)
                read = 0
            if self._whole:
                self._check_whole(meta)
        except DamageError:
            if self._file.keeps(meta):
                raise
            raise _ChangedError from None
        return self._finish(headers)

    def _values(self, nodes: Nodes, meta: Meta, free: Ints) -> Ints:
        """Check the records of some leaf pages; returns the positions of their values."""
        check_records(nodes)
        size, length = self._file.page_size, self._file.length()
        first, _ = check_values(nodes, size, meta.last_page, length)
        check_in_use(free, first)
        return value_offsets(nodes, first, size)

    def _check_whole(self, meta: Meta) -> None:
        if self._count != meta.main.entries:
            raise DamageError(f"{self._count} records found of {meta.main.entries}")
        if self._value_pages:
            check_once(np.concatenate(self._value_pages))

    def _rest(self, meta: Meta, pages: Ints) -> tuple[Ints, int]:
        """The leaf pages after the last key, and how many nodes of the first have been read."""
        if self._last_key is None:
            return pages, 0
        self._whole, self._table = False, None
        leaf = next(leaves_from(self._file, meta, self._last_key + b"\0"), None)
        if leaf is None or leaf.number not in pages:
            raise DamageError("its last records are gone")
        return pages[int((pages == leaf.number).argmax()) :], leaf.entry

    def _add(self, nodes: Nodes, offsets: Ints, read: int, meta: Meta) -> None:
        """Add the records of some pages after the first, which have been read before."""
        nodes = nodes.after(read)
        if not len(nodes.starts):
            return
        hashes = hash_ordered_keys(nodes, self._last_key)
        if not self._file.keeps(meta):
            raise _ChangedError
        first = nodes.first_nodes()
        starts = self._count + first
        before = int(self._starts[-1][-1]) // _ANCHOR_EVERY if self._starts else -1
        chosen = np.diff(starts // _ANCHOR_EVERY, prepend=before) > 0
        self._anchors += starts[chosen].tolist()
        self._anchor_keys += [nodes.key(node) for node in first[chosen].tolist()]
        self._pages.append(nodes.numbers)
        self._starts.append(starts)
        self._hashes.append(hashes)
        self._count += len(hashes)
        self._last_key = nodes.key(len(hashes) - 1)
        if self._whole:
            pages = offsets[offsets % self._file.page_size == HEADER] // self._file.page_size
            self._value_pages.append(pages.astype(unsigned(meta.last_page)))
        if self._table is not None and not self._table.add(nodes, offsets):
            self._table = None

    def _finish(self, headers: bytes) -> RecordIndex:
        none = np.empty(0, np.int64)
        return RecordIndex(
            headers if self._whole else b"",
            packed(np.concatenate([none, *self._pages])),
            packed(np.concatenate([none, *self._starts, [self._count]])),
            np.concatenate([none.astype(np.uint32), *self._hashes]).data,
            packed(np.array(self._anchors, np.int64)),
            self._anchor_keys,
            self._last_key or b"",
            None if self._table is None else self._table.finish(),
        )


class _Records:
    """An open database file with an index of the records that it had when it was opened."""

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        try:
            self.file = PageFile(folder)
            self.index: RecordIndex = build_index(self.file)
        except DamageError as damage:
            raise corrupt(folder, damage) from None
        self.count = len(self.index)
        self.length = self.file.length()
        self._finds = 0
        self._renewing = threading.Lock()

    def key(self, record: int) -> bytes:
        """A key in the state of the index; see `value`."""
        index = self.index
        return index.kept_key(record) or self._checked(index, index.key, record)

    def value(self, record: int) -> bytes:
        """A value in the state of the index.

        Raises:
            _ChangedError: the database has changed since.
            DamageError: the record is damaged, or the file has been cut short.
        """
        index = self.index
        return self._checked(index, index.value, record)

    def _checked(
        self, index: RecordIndex, method: Callable[[PageFile, int], bytes], record: int
    ) -> bytes:
        try:
            result = method(self.file, record)
        except DamageError:
            if self.file.headers() == index.headers:
                raise
            raise _ChangedError from None
        if self.file.headers() != index.headers:
            raise _ChangedError
        return result

    def find(self, record: int, value: bool) -> bytes | None:
        """A key or a value in the newest state; None if it is gone.

        Raises:
            DamageError: the database is damaged.
            DataError: it changes faster than it can be read.
        """
        self._renew()
        for _ in range(_ATTEMPTS):
            meta, _headers = self.file.newest()
            damage, result = None, None
            try:
                check_main_table(meta)
                place = self.index.find(self.file, meta, record)
                if place is not None:
                    result = read_value(self.file, *place) if value else place[1].key
            except DamageError as error:
                damage = error
            if self.file.keeps(meta):
                if damage is not None:
                    raise damage
                return result
        raise changes_too_fast(self.file.folder)

    def _renew(self) -> None:
        """After many records were found by key, build an index of the newest state.

        It is used only if the same keys are at the same positions, as after an append.
        """
        self._finds += 1
        enough = max(_FINDS, self.count // _PART)
        if self._finds < enough or not self._renewing.acquire(blocking=False):
            return
        try:
            self._finds = 0
            index = build_index(self.file)
            before = np.asarray(self.index.hashes[: self.count])
            same = np.array_equal(before, np.asarray(index.hashes[: self.count]))
            if same and index.headers:  # else it is still changing
                self.index = index
        except (DamageError, DataError):
            return  # the next read raises the same error if it needs the page
        finally:
            self._renewing.release()


class Reader:
    """A database opened for reading; every method may be called from any thread or child process.

    With `incomplete`, a database whose writing was interrupted is opened as well.

    Raises:
        DataError: the folder is missing, not an LMDB, corrupt, incomplete, or empty.
    """

    def __init__(self, path: str | Path, incomplete: bool = False) -> None:
        self.path = Path(path)
        if not incomplete:
            check_complete(self.path)
        self._records: _Records | None = _Records(self.path)
        if not self._records.count:
            self._records = None
            raise DataError(
                f"{self.path}: the database is empty; expected at least one record; "
                "look at the log of convert_imageset"
            )

    def _open(self) -> _Records:
        if self._records is None:
            raise DataError(f"{self.path}: the database was closed; open a new Reader")
        return self._records

    def __len__(self) -> int:
        return self._open().count

    def key(self, index: int) -> str:
        """The key of record `index` as text, for messages."""
        return self.key_bytes(index).decode(errors="replace")

    def key_bytes(self, index: int) -> bytes:
        """The key of record `index` in the order of the keys."""
        return self._read(index, False)

    def get(self, index: int) -> bytes:
        """The value of record `index` in the order of the keys.

        Raises:
            DataError: the record is damaged or gone.
        """
        return self._read(index, True)

    def _read(self, index: int, value: bool) -> bytes:
        records = self._open()
        if not 0 <= index < records.count:
            raise IndexError(f"record {index} of {records.count}")
        try:
            try:
                return records.value(index) if value else records.key(index)
            except _ChangedError:
                result = records.find(index, value)
        except TruncatedError as damage:
            raise DataError(
                f"{self.path}: data.mdb has {damage.length} bytes of {records.length}: it was cut "
                "short while it was read; make or copy the database again, and resume from the "
                "last snapshot"
            ) from None
        except DamageError as damage:
            raise corrupt(self.path, damage) from None
        if result is None:
            raise DataError(
                f"{self.path}: record {index} is gone; the database was changed while it was "
                "read; make it again, or open it again"
            )
        return result

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return ((self.key_bytes(index), self.get(index)) for index in range(len(self)))

    def close(self) -> None:
        """Close the database once reads in other threads have ended."""
        self._records = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
