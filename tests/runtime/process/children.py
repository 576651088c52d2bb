"""Runs a function in a forked child and returns the bytes that it computed there."""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which a child counts as hung."""


class Child:
    """A forked child that computes `function()`; it ends without running exit handlers."""

    def __init__(self, function: Callable[[], bytes]) -> None:
        self._read, write = os.pipe()
        with warnings.catch_warnings():
            # Python warns of forks while threads run, which is what these tests are about.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self._read)
                with os.fdopen(write, "wb") as pipe:
                    pipe.write(function())
                status = 0
            except BaseException:  # noqa: BLE001  printed; the parent sees the status
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(write)

    def result(self) -> bytes:
        """What the child computed.

        Raises:
            AssertionError: it hung, or failed; its traceback is on stderr.
        """
        parts, end = [], time.monotonic() + PATIENCE
        try:
            while True:
                ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
                if not ready:
                    os.kill(self.pid, signal.SIGKILL)
                    raise AssertionError(f"a forked child gave no result in {PATIENCE:g} seconds")
                part = os.read(self._read, 1 << 16)
                if not part:
                    break
                parts.append(part)
        finally:
            os.close(self._read)
            _, status = os.waitpid(self.pid, 0)
        assert status == 0, f"a forked child ended with wait status {status}"
        return b"".join(parts)


def in_child(function: Callable[[], bytes]) -> bytes:
    """Compute `function()` in a forked child."""
    return Child(function).result()
