"""LMDB databases of Caffe: reading by position from any thread, and writing with a map that grows.

The only module that imports lmdb.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from data_prep.lmdb_check import KeyTable, check_and_list_keys
from prototxt_gen.errors import DataError

COMMIT_EVERY = 1000
"""Records per transaction, as in Caffe's convert_imageset."""
INITIAL_MAP_SIZE = 64 << 20
_PENDING_BYTES = 256 << 20


class _Environment:
    """One open database file with its keys.

    Values are read as from any file: a map, as liblmdb's, has the system end the process where the
    file is cut short while it is read. Only a file that somebody goes on writing is liblmdb's.
    """

    def __init__(self, folder: Path) -> None:
        import lmdb

        self.keys: KeyTable = check_and_list_keys(folder)
        self._file = (folder / "data.mdb").open("rb", buffering=0)
        self._length, self._written = self._state()
        try:
            # The order of reading is random when shuffled, so reading ahead only fills memory.
            self._lmdb = lmdb.open(
                os.fsencode(folder), readonly=True, lock=False, readahead=False, max_spare_txns=64
            )
        except lmdb.Error as cause:
            raise DataError(f"{folder}: cannot be opened as LMDB: {cause}; see the path") from cause

    def _state(self) -> tuple[int, int]:
        """Bytes of the file, and when it was last written."""
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def get(self, index: int, folder: Path) -> bytes | None:
        """The value of a record; None if it is gone.

        Raises:
            DataError: the file has been cut short since it was opened, or cannot be read.
        """
        length, written = self._state()
        if length >= self._length:
            if written != self._written:
                return self._current(self.keys[index], folder)
            offset, size = self.keys.place(index)
            value = self._read(offset, size, folder)
            if len(value) == size:
                return value
            length = self._state()[0]
        raise DataError(
            f"{folder}: data.mdb has {length} bytes of {self._length}: it was cut short while it "
            "was read; make the database again, or copy it here again, and go on from the last "
            "snapshot"
        )

    def _read(self, offset: int, size: int, folder: Path) -> bytes:
        try:
            return os.pread(self._file.fileno(), size, offset)
        except OSError as cause:
            raise DataError(
                f"{folder}: data.mdb cannot be read: {cause.strerror}; look at the disk; the last "
                "snapshot is intact"
            ) from cause

    def _current(self, key: bytes, folder: Path) -> bytes | None:
        """The value of a key in what has been committed meanwhile."""
        import lmdb

        try:
            with self._lmdb.begin() as transaction:
                value = transaction.get(key)
        except lmdb.Error as cause:
            raise DataError(
                f"{folder}: record {key!r} cannot be read: {cause}; make the database again"
            ) from cause
        return None if value is None else bytes(value)


# liblmdb forbids to open a file twice in one process, while a train net, a test net and replicas
# may all read the same one: they share the open environment, which closes with its last reader.
_OPEN: weakref.WeakValueDictionary[tuple[int, int], _Environment] = weakref.WeakValueDictionary()
_OPEN_LOCK = threading.Lock()


def _check_folder(folder: Path) -> Path:
    """Return the path of data.mdb.

    Raises:
        DataError: nothing is there, or it is another kind of database.
    """
    if not folder.exists():
        raise DataError(
            f"{folder}: no such database; expected a folder with data.mdb; "
            "make it with `verydeep convert_imageset`"
        )
    if not folder.is_dir():
        raise DataError(f"{folder}: a file; expected the folder that holds data.mdb")
    file = folder / "data.mdb"
    if file.is_file():
        return file
    if (folder / "CURRENT").exists() or any(folder.glob("MANIFEST-*")):
        raise DataError(
            f"{folder}: a LevelDB database; expected LMDB; make it again from the images with "
            "`verydeep convert_imageset --backend lmdb`, and set `backend: LMDB` in data_param"
        )
    raise DataError(
        f"{folder}: not an LMDB database: there is no data.mdb in it; "
        "make it with `verydeep convert_imageset`"
    )


class Reader:
    """A database opened for reading; every method may be called from any thread.

    Raises:
        DataError: the folder is missing, not an LMDB, corrupt, or empty.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        status = _check_folder(self.path).stat()
        identity = (status.st_dev, status.st_ino)
        with _OPEN_LOCK:
            environment = _OPEN.get(identity)
            if environment is None:
                environment = _OPEN[identity] = _Environment(self.path)
        self._environment: _Environment | None = environment
        if not len(environment.keys):
            self._environment = None
            raise DataError(
                f"{self.path}: the database is empty; expected at least one record; "
                "look at the log of convert_imageset"
            )

    def _open(self) -> _Environment:
        if self._environment is None:
            raise DataError(f"{self.path}: the database was closed; open a new Reader")
        return self._environment

    def __len__(self) -> int:
        return len(self._open().keys)

    @property
    def keys(self) -> KeyTable:
        """All keys, in the order of the database."""
        return self._open().keys

    def key(self, index: int) -> str:
        """The key of record `index` as text, for messages."""
        return self.keys[index].decode(errors="replace")

    def get(self, index: int) -> bytes:
        """The value of record `index` in the order of the keys."""
        environment = self._open()
        value = environment.get(index, self.path)
        if value is None:
            raise DataError(
                f"{self.path}: record {environment.keys[index]!r} is gone; the database was "
                "changed while it was read"
            )
        return value

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        keys = self._open().keys
        return ((keys[index], self.get(index)) for index in range(len(keys)))

    def close(self) -> None:
        """Let go of the database; it closes when its last reader does."""
        self._environment = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Writer:
    """A database opened for writing, committed every 1,000 records.

    With `append` an existing database is continued; otherwise the folder must not exist, as in
    Caffe. When the block ends with an error, records since the last commit are dropped and the
    others stay.

    `resuming` is what errors advise for going on with a database that was interrupted, if anything.

    Raises:
        DataError: the folder exists, is read-only, or the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        append: bool = False,
        map_size: int = INITIAL_MAP_SIZE,
        commit_every: int = COMMIT_EVERY,
        *,
        resuming: str = "--resume",
    ) -> None:
        import lmdb

        self.path = Path(path)
        self._resuming = resuming
        self._commit_every = commit_every
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        if append and self.path.exists():
            size = _check_folder(self.path).stat().st_size
            check_and_list_keys(self.path)
            map_size = max(map_size, 2 * size)
        else:
            self._make_folder()
        try:
            self._lmdb: Any = lmdb.open(os.fsencode(self.path), map_size=map_size)
        except lmdb.Error as cause:
            raise DataError(
                f"{self.path}: cannot be opened for writing: {cause}; "
                "close its readers, free some space, or choose a folder you may write to"
            ) from cause

    def _make_folder(self) -> None:
        if self.path.exists():
            otherwise = f", or go on with {self._resuming}" if self._resuming else ""
            raise DataError(
                f"{self.path}: exists already; expected a new folder; "
                f"remove it or give another name{otherwise}"
            )
        try:
            self.path.mkdir(parents=True)
        except OSError as cause:
            raise DataError(
                f"{self.path}: cannot be made: {cause.strerror}; "
                "choose a folder you may write to, on a disk with space"
            ) from cause

    @property
    def count(self) -> int:
        """The number of committed records."""
        return int(self._lmdb.stat()["entries"])

    def last_key(self) -> bytes | None:
        """The greatest committed key; None when there is none."""
        with self._lmdb.begin() as transaction, transaction.cursor() as cursor:
            return bytes(cursor.key()) if cursor.last() else None

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record."""
        longest = self._lmdb.max_key_size()
        if not 0 < len(key) <= longest:
            raise DataError(
                f"{self.path}: a key of {len(key)} bytes ({key[:40]!r}...); LMDB holds keys of "
                f"1 to {longest}; use shorter file names"
            )
        self._pending.append((key, value))
        self._pending_bytes += len(value)
        if len(self._pending) >= self._commit_every or self._pending_bytes >= _PENDING_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what is pending in one transaction; the map doubles until it fits."""
        import lmdb

        while self._pending:
            try:
                with self._lmdb.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                self._pending.clear()
                self._pending_bytes = 0
            except lmdb.MapFullError:
                self._lmdb.set_mapsize(2 * int(self._lmdb.info()["map_size"]))
            except lmdb.Error as cause:
                again = f"go on with {self._resuming}" if self._resuming else "begin again"
                raise DataError(
                    f"{self.path}: {len(self._pending)} records could not be written: {cause} "
                    "(so a full disk or a quota shows); "
                    f"the {self.count} records committed before are safe; free some disk space "
                    f"and {again}"
                ) from cause

    def close(self) -> None:
        """Commit and close."""
        try:
            self.commit()
        finally:
            self._lmdb.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._pending.clear()
        self.close()
