"""Reading LMDB databases by position, without liblmdb.

Readers take no lock, so the same process may have the database open with liblmdb as well, and they
go on in child processes after a fork. The records are those of the keys that the database had when
it was opened. Where another program goes on writing it, a record that is replaced is read as it is
now, and one that is removed is an error; nothing is read from pages that have other uses since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_prep.lmdb_file import (
    DamageError,
    PageFile,
    TruncatedError,
    changes_too_fast,
    check_main_table,
    corrupt,
)
from data_prep.lmdb_index import RecordIndex, build_index
from data_prep.lmdb_pages import read_value
from prototxt_gen.errors import DataError

_ATTEMPTS = 1000
_FINDS, _PART = 1000, 100
"""A new index pays after so many records were found by key, or this part of all."""


def check_folder(folder: Path) -> Path:
    """Return the path of data.mdb.

    Raises:
        DataError: nothing is there, or it is another kind of database.
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


class _ChangedError(Exception):
    """The database is no longer in the state of the index."""


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
        """A key or a value in what another program has committed; None if it is gone.

        Raises:
            DamageError: the database is damaged now.
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
        """After many records were found by key, take an index of the state of now instead.

        Only if the same keys are at the same positions, as they are where records were appended.
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
            if same and index.headers:  # else it changes still
                self.index = index
        except (DamageError, DataError):
            return  # the read that follows meets the same damage if it needs the page
        finally:
            self._renewing.release()


class Reader:
    """A database opened for reading; every method may be called from any thread or child process.

    Raises:
        DataError: the folder is missing, not an LMDB, corrupt, or empty.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
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
                "short while it was read; make the database again, or copy it here again, and go "
                "on from the last snapshot"
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
