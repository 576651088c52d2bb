"""A lock for objects that several threads call and that a forked child may inherit."""

from __future__ import annotations

import os
import threading

from prototxt_gen.errors import DeviceError


class ProcessLock:
    """A re-entrant lock that is not locked in a forked child.

    At a fork, another thread of the parent may hold the lock, and that thread does not exist in the
    child. `with lock.current(): ...` therefore uses a new lock in each process. For an object that
    cannot be used in a forked child, `refusal` is the error message.
    """

    __slots__ = ("_lock", "_process", "_refusal")

    def __init__(self, refusal: str | None = None) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._refusal = refusal

    def current(self) -> threading.RLock:
        """The lock of this process.

        Raises:
            DeviceError: the object cannot be used in a forked child.
        """
        process = os.getpid()
        if process != self._process:
            if self._refusal is not None:
                raise DeviceError(self._refusal)
            self._process, self._lock = process, threading.RLock()
        return self._lock
