"""Writes files atomically.

A file is written as `.NAME.xxxxxxxx.tmp` in the same folder, and renamed at the end. The writer
locks the temporary file. One without a lock is from a process that was killed; the next writer of
the same file removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from prototxt_gen.destination import Destination, find_destination
from prototxt_gen.errors import VerydeepError

TEMPORARY = ".tmp"
_TOKEN = "[a-z0-9_]{8}"
_LONGEST_NAME = 200
"""The most bytes of a name that are part of its temporary name; a name has at most 255."""
_ATTEMPTS = 100
_ACCESS_LIST = "system.posix_acl_access"


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str],
    mode: str = "wb",
    error: type[VerydeepError] = VerydeepError,
    durable: bool = True,
) -> Iterator[IO[Any]]:
    """Open a temporary file that replaces the one at `path` when the block ends.

    Symbolic links are kept; the file they refer to is replaced. A new file has the permissions of
    the umask; a replaced file keeps its permissions, and its owner if the system permits it. A
    character device or a pipe is written to when the block ends.

    With `durable` the contents are synchronized to disk before the rename, so that a reader finds
    the old file or the new one, even after a power failure. If the block raises an exception, the
    old file is kept and the temporary one is removed.

    Raises:
        error: the folder is missing or read-only, the disk is full, or `path` is a folder or a
            block device; the message contains the path and the cause.
    """
    with typed_errors(path, error):
        destination = find_destination(path)
        if not destination.replaceable:
            with tempfile.TemporaryFile() as spool:
                yield spool
                spool.seek(0)
                _copy_into(destination, spool)
            return
        with temporary_file(destination) as (name, handle):
            with os.fdopen(handle, mode, closefd=False) as stream:
                yield stream
            if durable:
                os.fsync(handle)
            name.replace(destination.path)


def atomic_write_text(
    path: str | os.PathLike[str], text: str, error: type[VerydeepError] = VerydeepError
) -> None:
    """Write `text` in UTF-8 to the file at `path`; bytes of file names that are not UTF-8 are kept.

    Raises:
        error: see `atomic_write`.
    """
    with atomic_write(path, "wb", error) as stream:
        stream.write(text.encode(errors="surrogateescape"))


@contextlib.contextmanager
def typed_errors(path: str | os.PathLike[str], error: type[VerydeepError]) -> Iterator[None]:
    """Convert an OSError of writing a file.

    Raises:
        error: the block raised an OSError; the message contains the path and the cause.
    """
    try:
        yield
    except OSError as cause:
        raise error(
            f"{os.fspath(path)}: cannot be written: {cause.strerror or cause}; "
            "free some space or choose a folder you may write to; nothing was replaced"
        ) from cause


@contextlib.contextmanager
def temporary_file(destination: Destination) -> Iterator[tuple[Path, int]]:
    """Yield the path and the open descriptor of a new file in the folder of `destination`.

    It has the permissions for the file at `destination`, and is removed at the end of the block
    unless it was renamed.
    """
    target = destination.path
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, re.escape(_stem(target.name)))
    permissions = 0o666 if destination.status is None else 0o600
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    name, handle = _make(target, lambda place: os.open(place, flags, permissions))
    try:
        if destination.status is not None:
            keep_attributes(handle, destination)
        yield name, handle
    finally:
        with contextlib.suppress(OSError):
            name.unlink()
        os.close(handle)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder in the folder of `target`; it is removed with its contents at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, re.escape(_stem(target.name)))

    def make(place: Path) -> int:
        place.mkdir()
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    name, handle = _make(target, make)
    try:
        yield name
    finally:
        shutil.rmtree(name, ignore_errors=True)
        os.close(handle)


def remove_abandoned(folder: Path, stem: str, suffix: str = TEMPORARY) -> list[Path]:
    """Remove the temporary files and folders of killed processes, and return their paths.

    `stem` is a regular expression for the names of the files that they would have replaced.
    """
    return [name for name in abandoned(folder, stem, suffix) if _remove(name)]


def abandoned(folder: Path, stem: str, suffix: str = TEMPORARY) -> Iterator[Path]:
    """Yield the temporary files and folders of killed processes; each is locked until the next."""
    pattern = re.compile(rf"\.{stem}\.{_TOKEN}{re.escape(suffix)}", re.DOTALL)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if pattern.fullmatch(entry.name)]
    except (OSError, ValueError):
        return
    for name in sorted(names):
        path = folder / name
        handle = _open_to_lock(path)
        if handle is None:
            continue
        try:
            kind = os.fstat(handle).st_mode
            if (stat.S_ISREG(kind) or stat.S_ISDIR(kind)) and _lock(handle, wait=False):
                yield path
        finally:
            os.close(handle)


def _open_to_lock(path: Path) -> int | None:
    # Network file systems lock only files that are open for writing, and no folders.
    for mode in (os.O_RDWR, os.O_RDONLY):
        with contextlib.suppress(OSError):
            return os.open(path, mode | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


def keep_attributes(handle: int, destination: Destination) -> None:
    """Set the permissions of a file to another's, and its owner if the system permits it."""
    status = destination.status
    if status is None:
        return
    with contextlib.suppress(OSError):
        os.fchown(handle, -1, status.st_gid)
        os.fchown(handle, status.st_uid, -1)
    with contextlib.suppress(OSError):
        os.fchmod(handle, stat.S_IMODE(status.st_mode))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            access = os.getxattr(destination.path, _ACCESS_LIST)
            os.setxattr(handle, _ACCESS_LIST, access)


def _copy_into(destination: Destination, content: IO[bytes]) -> None:
    """Write to a device, a pipe, or a descriptor of this process."""
    if destination.descriptor is None:
        handle = os.open(destination.path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    else:
        for printed in (sys.stdout, sys.stderr):
            if printed is not None:
                printed.flush()
        handle = os.dup(destination.descriptor)
    with os.fdopen(handle, "wb") as stream:
        shutil.copyfileobj(content, stream, 1 << 20)


def _make(target: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """Create a temporary file or folder, and lock it."""
    for _ in range(_ATTEMPTS):
        name = target.with_name(f".{_stem(target.name)}.{secrets.token_hex(4)}{TEMPORARY}")
        try:
            handle = make(name)
        except FileExistsError:
            continue
        _lock(handle, wait=True)
        # Another process may have found it before it was locked, and removed it.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), name.lstat()):
                return name, handle
        os.close(handle)
    raise OSError(errno.EEXIST, "no temporary file can be created in its folder")


def _stem(name: str) -> str:
    """The part of a temporary name that identifies the file."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_NAME:
        return name
    kept = encoded[: _LONGEST_NAME - 17].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(encoded).hexdigest()[:16]}"


def _lock(handle: int, wait: bool) -> bool:
    """Lock an open file; False if another process has locked it, or locks are not supported."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _remove(path: Path) -> bool:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    return True
