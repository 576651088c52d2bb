"""LMDB databases of Caffe: reading by position, and writing with a map that grows.

No other module imports lmdb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from data_prep.db_record import FILE, DatabaseRecord, remove_record, write_record
from data_prep.lmdb_check import check_for_writing, check_replaced
from data_prep.lmdb_file import check_folder
from data_prep.lmdb_reader import Reader
from prototxt_gen.errors import DataError

__all__ = ["COMMIT_EVERY", "INITIAL_MAP_SIZE", "Reader", "Writer"]

COMMIT_EVERY = 1000
"""Records per transaction, as in Caffe's convert_imageset."""
INITIAL_MAP_SIZE = 64 << 20
_PENDING_BYTES = 256 << 20
_LOCK_BYTES = 8192
"""The size of the lock file of liblmdb for 126 readers, which is its default."""


class _Environment:
    """The environment of liblmdb for a database that is written; its last user closes it."""

    def __init__(self, folder: Path, map_size: int, new: bool) -> None:
        import lmdb

        self.process = os.getpid()
        self.lock = threading.RLock()
        self.users = 0
        self._folder = folder
        self._pages = None if new else check_for_writing(folder)
        self._replaced: set[bytes] = set()
        self.lmdb: Any = None
        try:
            _reserve_lock_file(folder)
            self.lmdb = lmdb.open(os.fsencode(folder), map_size=map_size)
            self._last_key = self.last_key()
            self.longest_key = int(self.lmdb.max_key_size())
        except (lmdb.Error, OSError) as cause:
            if self.lmdb is not None:
                self.lmdb.close()
            reason = cause.strerror if isinstance(cause, OSError) else cause
            raise DataError(
                f"{folder}: cannot be opened for writing: {reason}; close it where this process "
                "has it open, free some space, or choose a folder you may write to"
            ) from cause

    def last_key(self) -> bytes | None:
        """The greatest committed key; None if there are no records."""
        with self.lmdb.begin() as transaction, transaction.cursor() as cursor:
            return bytes(cursor.key()) if cursor.last() else None

    def check_replaced(self, keys: Iterable[bytes]) -> None:
        """Check the pages that liblmdb frees when it replaces records that existed at the start."""
        if self._pages is None or self._last_key is None:
            return
        last = self._last_key
        old = {key for key in keys if key <= last} - self._replaced
        if old:
            check_replaced(self._folder, sorted(old), self._pages)
            self._replaced |= old

    def leave(self) -> None:
        """Remove one user."""
        with _lock_of_process():
            self.users -= 1
            if not self.users:
                self.lmdb.close()


def _reserve_lock_file(folder: Path) -> None:
    """Reserve disk space for the lock file, if it has none.

    liblmdb maps the file, so a full disk would end the process with a signal. A file that is in use
    has space; it must not be opened, because closing it would release the locks of liblmdb.
    """
    path = folder / "lock.mdb"
    reserve = getattr(os, "posix_fallocate", None)  # missing in macOS
    if reserve is not None and (not path.exists() or path.stat().st_blocks == 0):
        with path.open("ab") as file:
            reserve(file.fileno(), 0, _LOCK_BYTES)


# A process must not open a file twice with liblmdb, so writers of a database share an environment.
# The process is a part of the key, because an environment cannot be used in a child process.
_OPEN: weakref.WeakValueDictionary[tuple[int, int, int], _Environment] = (
    weakref.WeakValueDictionary()
)
_LOCKS: dict[int, threading.Lock] = {}


def _lock_of_process() -> threading.Lock:
    """The lock of this process: a lock that the parent held at the fork is never released."""
    return _LOCKS.setdefault(os.getpid(), threading.Lock())


def _join_environment(folder: Path, map_size: int) -> _Environment:
    """The environment of an existing file, which is checked before liblmdb opens it."""
    with _lock_of_process():
        status = check_folder(folder).stat()
        identity = os.getpid(), status.st_dev, status.st_ino
        environment = _OPEN.get(identity)
        if environment is None or not environment.users:
            used = min(status.st_size, 512 * status.st_blocks)  # less if the file has holes
            size = max(map_size, 2 * used)
            environment = _OPEN[identity] = _Environment(folder, size, not status.st_size)
        environment.users += 1
        return environment


class Writer:
    """A database opened for writing, committed every 1,000 records.

    With `append` an existing database is continued; otherwise the folder must not exist, as in
    Caffe. If the block ends with an error, records since the last commit are dropped and the others
    remain. Several writers of a process, and several threads, may write one database.

    `resuming` is the flag that errors advise to continue an interrupted database, if there is one.

    Raises:
        DataError: the folder exists, is read-only or damaged, or the disk is full.
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
        self.path = Path(path)
        self._resuming = resuming
        self._commit_every = commit_every
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        self._count = 0
        self._record: DatabaseRecord | None = None
        self._make_folder(append)
        self._environment: _Environment | None = _join_environment(self.path, map_size)
        try:
            self._count = self.count
        except DataError:
            self._leave()
            raise

    def _make_folder(self, append: bool) -> None:
        """Create the folder with an empty file, which is a new database for liblmdb."""
        try:
            if append and self.path.is_dir():
                names = {file.name for file in self.path.iterdir()}
                if not names <= {"lock.mdb", FILE}:  # left by an interrupted start
                    return
            self.path.mkdir(parents=True, exist_ok=append)
            (self.path / "data.mdb").touch()
        except FileExistsError:
            if append:
                check_folder(self.path)
            otherwise = f", or continue it with {self._resuming}" if self._resuming else ""
            raise DataError(
                f"{self.path}: exists already; expected a new folder; "
                f"remove it or give another name{otherwise}"
            ) from None
        except (OSError, ValueError) as cause:
            reason = cause.strerror if isinstance(cause, OSError) else cause
            raise DataError(
                f"{self.path}: cannot be made: {reason}; "
                "choose a folder you may write to, on a disk with space"
            ) from cause

    def _usable(self) -> _Environment:
        environment = self._environment
        if environment is None:
            raise DataError(f"{self.path}: the database was closed; open a new Writer")
        if environment.process != os.getpid():
            raise DataError(
                f"{self.path}: opened before this process was forked; open a Writer in the process "
                "that writes"
            )
        return environment

    @contextlib.contextmanager
    def _liblmdb(self) -> Iterator[_Environment]:
        """The environment for one thread at a time; errors of liblmdb are raised as DataError."""
        import lmdb

        environment = self._usable()
        with environment.lock:
            try:
                yield environment
            except lmdb.Error as cause:
                lost = (
                    f"{len(self._pending)} records could not be written: " if self._pending else ""
                )
                again = f"continue with {self._resuming}" if self._resuming else "begin again"
                raise DataError(
                    f"{self.path}: {lost}{cause} (usually a full disk or quota); "
                    f"the {self._count} records committed before are safe; free some disk space "
                    f"and {again}"
                ) from cause

    def begin(self, options: Mapping[str, Any] | None = None) -> None:
        """Record that the database is incomplete until `close`, and how it is made.

        Raises:
            DataError: the record cannot be written.
        """
        self._record = DatabaseRecord(False, self._resuming, options or {})
        write_record(self.path, self._record)

    def _complete(self) -> None:
        record, self._record = self._record, None
        if record is not None and record.options:
            write_record(self.path, dataclasses.replace(record, complete=True))
        elif record is not None:
            remove_record(self.path)

    @property
    def count(self) -> int:
        """The number of committed records."""
        with self._liblmdb() as environment:
            return int(environment.lmdb.stat()["entries"])

    def last_key(self) -> bytes | None:
        """The greatest committed key; None if there are no records."""
        with self._liblmdb() as environment:
            return environment.last_key()

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record."""
        environment = self._usable()
        if not 0 < len(key) <= environment.longest_key:
            raise DataError(
                f"{self.path}: a key of {len(key)} bytes ({key[:40]!r}...); LMDB holds keys of "
                f"1 to {environment.longest_key}; use shorter file names"
            )
        with environment.lock:
            self._pending.append((key, value))
            self._pending_bytes += len(value)
            if len(self._pending) >= self._commit_every or self._pending_bytes >= _PENDING_BYTES:
                self.commit()

    def commit(self) -> None:
        """Write the pending records in one transaction; the map is doubled until they fit."""
        import lmdb

        with self._liblmdb() as environment:
            environment.check_replaced(key for key, _ in self._pending)
            while self._pending:
                try:
                    with environment.lmdb.begin(write=True) as transaction:
                        for key, value in self._pending:
                            transaction.put(key, value)
                    self._pending.clear()
                    self._pending_bytes = 0
                except lmdb.MapFullError:
                    environment.lmdb.set_mapsize(2 * int(environment.lmdb.info()["map_size"]))
                except lmdb.MapResizedError:
                    environment.lmdb.set_mapsize(0)  # the size that another process has set
            self._count = self.count

    def close(self) -> None:
        """Commit and close; in a child process, drop the copy only."""
        try:
            if self._environment is not None and self._environment.process == os.getpid():
                self.commit()
                self._complete()
        finally:
            self._leave()

    def _leave(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None and environment.process == os.getpid():
            environment.leave()

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
            self._leave()
        else:
            self.close()
