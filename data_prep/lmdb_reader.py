"""Reading LMDB databases by position, without liblmdb.

Readers take no lock, so the same process may have the database open with liblmdb as well, and they
go on in child processes after a fork. The records are those of the keys that the database had when
it was opened. Where another program goes on writing it, a record that is replaced is read as it is
now, and one that is removed is an error; nothing is read from pages that have other uses since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.lmdb_file import (
    DamageError,
    Meta,
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


class _Snapshot:
    """An open database file, with the index of the records that it had when it was opened."""

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        try:
            self.file = PageFile(folder)
            self.index: RecordIndex = build_index(self.file)
        except DamageError as damage:
            raise corrupt(folder, damage) from None
        self.length = self.file.length()

    def read(self, method: Callable[[PageFile, int], bytes], index: int) -> bytes:
        """A key or a value in the state of the index.

        Raises:
            _ChangedError: the database has changed since.
            DamageError: the record is damaged, or the file has been cut short.
        """
        try:
            result = method(self.file, index)
        except DamageError:
            if self.file.headers() == self.index.headers:
                raise
            raise _ChangedError from None
        if self.file.headers() != self.index.headers:
            raise _ChangedError
        return result


def _find(
    snapshot: _Snapshot, meta: Meta, index: int, value: bool
) -> tuple[bytes | None, DamageError | None]:
    """The key or the value of a record in a newer state, None if it is gone; or what is damaged."""
    try:
        check_main_table(meta)
        place = snapshot.index.find(snapshot.file, meta, index)
        if place is None:
            return None, None
        return read_value(snapshot.file, *place) if value else place[1].key, None
    except DamageError as damage:
        return None, damage


class Reader:
    """A database opened for reading; every method may be called from any thread or child process.

    Raises:
        DataError: the folder is missing, not an LMDB, corrupt, or empty.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._snapshot: _Snapshot | None = _Snapshot(self.path)
        if not len(self._snapshot.index):
            self._snapshot = None
            raise DataError(
                f"{self.path}: the database is empty; expected at least one record; "
                "look at the log of convert_imageset"
            )

    def _open(self) -> _Snapshot:
        if self._snapshot is None:
            raise DataError(f"{self.path}: the database was closed; open a new Reader")
        return self._snapshot

    def __len__(self) -> int:
        return len(self._open().index)

    def key(self, index: int) -> str:
        """The key of record `index` as text, for messages."""
        return self.key_bytes(index).decode(errors="replace")

    def key_bytes(self, index: int) -> bytes:
        """The key of record `index` in the order of the keys."""
        snapshot = self._open()
        try:
            key = snapshot.index.kept_key(index)
            return snapshot.read(snapshot.index.key, index) if key is None else key
        except _ChangedError:
            return self._read_changed(snapshot, index, False)
        except DamageError as damage:
            raise self._shown(snapshot, damage) from None

    def get(self, index: int) -> bytes:
        """The value of record `index` in the order of the keys.

        Raises:
            DataError: the record is damaged or gone.
        """
        snapshot = self._open()
        try:
            return snapshot.read(snapshot.index.value, index)
        except _ChangedError:
            return self._read_changed(snapshot, index, True)
        except DamageError as damage:
            raise self._shown(snapshot, damage) from None

    def _read_changed(self, snapshot: _Snapshot, index: int, value: bool) -> bytes:
        """The key or the value of a record in what another program has committed since."""
        for _ in range(_ATTEMPTS):
            try:
                meta, _headers = snapshot.file.newest()
                found, damage = _find(snapshot, meta, index, value)
                if not snapshot.file.keeps(meta):
                    continue
            except DamageError as error:
                damage = error
            if damage is not None:
                raise self._shown(snapshot, damage) from None
            if found is None:
                raise DataError(
                    f"{self.path}: record {index} is gone; the database was changed while it was "
                    "read; make it again, or open it again"
                )
            return found
        raise changes_too_fast(self.path)

    def _shown(self, snapshot: _Snapshot, damage: DamageError) -> DataError:
        if isinstance(damage, TruncatedError):
            return DataError(
                f"{self.path}: data.mdb has {damage.length} bytes of {snapshot.length}: it was cut "
                "short while it was read; make the database again, or copy it here again, and go "
                "on from the last snapshot"
            )
        return corrupt(self.path, damage)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return ((self.key_bytes(index), self.get(index)) for index in range(len(self)))

    def close(self) -> None:
        """Close the database once reads in other threads have ended."""
        self._snapshot = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
