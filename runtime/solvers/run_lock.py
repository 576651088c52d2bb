"""A lock on the files of a run, which ends with the process that holds it.

It is an advisory lock (flock) on a file PATH.run.lock. The kernel releases it when the process
ends, however it ends, so a file that a killed process left behind locks nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path

from prototxt_gen.errors import SnapshotError
from prototxt_gen.reading import parse_json

log = logging.getLogger("verydeep.solver")

SUFFIX = ".run.lock"
_MOST_BYTES = 4096
_ADVICE = "another snapshot_prefix (and another --log_json and --log_file)"


@contextlib.contextmanager
def lock_run(*paths: str | os.PathLike[str], advice: str = _ADVICE) -> Iterator[None]:
    """Lock the files that a run writes, given by its snapshot_prefix and the paths of its logs.

    `advice` names what to choose for a second run at the same time.

    Where locks are not available, such as on some network file systems, a warning is logged and the
    run is not locked.

    Raises:
        SnapshotError: another process has locked one of them; names the process.
    """
    with contextlib.ExitStack() as stack:
        for path in dict.fromkeys(os.fspath(path) for path in paths):
            stack.callback(_Lock(path, advice).release)
        yield


class _Lock:
    """The lock of one path, held until `release`."""

    def __init__(self, path: str, advice: str) -> None:
        self._path = path
        self._advice = advice
        self._file = Path(path + SUFFIX)
        self._owner = os.getpid()
        self._descriptor: int | None = None
        try:
            self._descriptor = self._acquire()
        except (OSError, ValueError, ImportError) as cause:
            reason = cause.strerror if isinstance(cause, OSError) else cause
            log.warning(
                "%s: cannot be locked: %s; a second run that writes the same files would not be "
                "noticed",
                self._file,
                reason,
            )
            return
        reference = weakref.ref(self)
        # A forked child has a copy of the descriptor, which would keep the lock after this process.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: _drop(reference()))

    def _acquire(self) -> int:
        import fcntl

        self._file.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = self._open()
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "not a regular file")
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(descriptor):
                    self._write_owner(descriptor)
                    return descriptor
            except OSError as cause:
                owner = _read_owner(descriptor)
                os.close(descriptor)
                if isinstance(cause, BlockingIOError):
                    raise self._refusal(owner) from None
                raise
            # The previous owner removed the file between the two calls.
            os.close(descriptor)

    def _open(self) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            return os.open(self._file, flags | os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError as cause:
            # Another user's file: its lock is seen by a reader as well.
            try:
                return os.open(self._file, flags | os.O_RDONLY)
            except FileNotFoundError:
                raise cause from None

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._file.stat())
        except FileNotFoundError:
            return False

    def _write_owner(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_size and _read_owner(descriptor) is None:
            return  # the file of another program: its content stays
        record = json.dumps({"pid": self._owner, "host": socket.gethostname()}) + "\n"
        # A full disk does not prevent the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, record.encode(), 0)

    def _refusal(self, owner: str | None) -> SnapshotError:
        return SnapshotError(
            f"{self._path}: another run ({owner or 'an unknown process'}) writes these snapshots "
            "and logs; expected one run at a time; wait for its end, stop it, or choose "
            f"{self._advice}"
        )

    def release(self) -> None:
        """Remove the file and release the lock; does nothing in a forked child."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or os.getpid() != self._owner:
            return
        with contextlib.suppress(OSError):
            if self._is_current(descriptor) and _read_owner(descriptor) is not None:
                self._file.unlink()
        os.close(descriptor)

    def drop(self) -> None:
        """Close a forked child's copy of the descriptor; the parent keeps the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _drop(lock: _Lock | None) -> None:
    if lock is not None:
        lock.drop()


def _read_owner(descriptor: int) -> str | None:
    """The process that a lock file names; None if it is no lock file of this program."""
    try:
        record = parse_json(os.pread(descriptor, _MOST_BYTES, 0).decode())
        return f"process {int(record['pid'])} on {record['host']}"
    except (OSError, ValueError, TypeError, KeyError):
        return None
