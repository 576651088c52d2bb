"""Recording ops and replaying them as one graph: the interface of `Backend.recorder`."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Graph = Any
"""Recorded work that can be replayed; opaque, created by `Recorder.capture`."""


class Access(enum.Enum):
    """How a piece of work accesses a SyncedMemory."""

    DEVICE_READ = 0
    DEVICE_WRITE = 1
    HOST_READ = 2
    HOST_WRITE = 3
    VERSION = 4
    """It reads the version of the contents."""
    BINDING = 5
    """It reads whether the contents are unwritten zeros, or makes two memories share a storage."""


class Watch(threading.local):
    """The callback for accesses to memories of the backend, one per thread."""

    on_access: Callable[[Any, Access], None] | None = None


class Tape(Protocol):
    """The device calls of a piece of work. Tapes are equal if all calls and arguments are equal."""

    @property
    def pure(self) -> bool:
        """Whether all calls are launches, device copies or fills, without allocations."""

    @property
    def calls(self) -> int:
        """The number of recorded calls."""


class Recorder(Protocol):
    """Records the device calls of work while it runs, and replays them."""

    watch: Watch

    @property
    def generation(self) -> int:
        """A number whose change means that earlier graphs should be released, with their memory."""

    def begin(self, pass_number: int, rates: Sequence[float]) -> Hashable:
        """Set the pass number and the learning rates, in order, of the next work.

        Returns a key: recorded work may only replace work with an equal key. A device whose kernels
        read these numbers from device memory returns None.
        """

    def record(self, work: Callable[[], object]) -> Tape:
        """Run the work and record its device calls."""

    def paused(self) -> AbstractContextManager[None]:
        """Suspend recording inside the work: calls run, but are not recorded."""

    def capture(self, tapes: Sequence[Tape]) -> Graph:
        """Create one graph from pure tapes, without running it."""

    def replay(self, graph: Graph) -> None:
        """Run the calls of a graph.

        Raises:
            DeviceError: the device reports an error.
        """
