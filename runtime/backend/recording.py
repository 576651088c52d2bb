"""Recording of ops and repeating them at once: what `Backend.recorder` provides."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Graph = Any
"""Work that is repeated at once; opaque, made by `Recorder.capture`."""


class Access(enum.Enum):
    """How a piece of work uses a memory."""

    DEVICE_READ = 0
    DEVICE_WRITE = 1
    HOST_READ = 2
    HOST_WRITE = 3
    VERSION = 4
    """It asks whether the contents may have changed."""
    BINDING = 5
    """It asks whether they are zeros, or makes two memories look at one storage."""


class Watch(threading.local):
    """Called for every access to a memory of the backend by the thread that is recording."""

    told: Callable[[Any, Access], None] | None = None


class Tape(Protocol):
    """What one piece of work asked of the device. Equal tapes asked for the very same."""

    @property
    def pure(self) -> bool:
        """Nothing but launches, copies on the device and fills; no memory was allocated."""

    @property
    def calls(self) -> int:
        """How much was asked for."""


class Recorder(Protocol):
    """Remembers launches while they are done, and repeats them."""

    watch: Watch

    @property
    def era(self) -> int:
        """Changes when graphs made before had better go: they keep scratch memory of their own."""

    def begin(self, pass_number: int, rates: Sequence[float]) -> Hashable:
        """Set the pass number and the learning rates, in order, of the coming work.

        Returns what work must have in common with recorded work to be replaced by it. A device
        whose kernels read both from its memory returns None.
        """

    def record(self, work: Callable[[], object]) -> Tape:
        """Do the work, and remember what it asked of the device."""

    def paused(self) -> AbstractContextManager[None]:
        """Within a work: what is asked for meanwhile is done, and not remembered."""

    def capture(self, tapes: Sequence[Tape]) -> Graph:
        """Make one graph of pure tapes, without doing anything."""

    def replay(self, graph: Graph) -> None:
        """Do what the tapes say."""
