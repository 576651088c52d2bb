"""Streams of the emulated device: queues that may be delayed as long as CUDA allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Work = Callable[[], None]


class EmulatedStream:
    """A queue of work. A late stream executes nothing until something waits for it."""

    def __init__(self, late: bool) -> None:
        self.late = late
        self._queue: deque[Work] = deque()

    def submit(self, work: Work) -> None:
        """Execute work now or, in a late stream, when something waits for it."""
        if self.late:
            self._queue.append(work)
        else:
            work()

    def drain(self) -> None:
        """Execute all work that was submitted."""
        while self._queue:
            self._queue.popleft()()

    def drain_until(self, event: EmulatedEvent) -> None:
        """Execute the work that was submitted before the event."""
        while event.pending and self._queue:
            self._queue.popleft()()


class EmulatedEvent:
    """A point in a stream."""

    def __init__(self) -> None:
        self.pending = 0
        self._stream: EmulatedStream | None = None

    def record(self, stream: EmulatedStream) -> None:
        """Record the event after all work of the stream so far."""
        self._stream = stream
        self.pending += 1
        stream.submit(self._pass)

    def _pass(self) -> None:
        self.pending -= 1

    def wait(self) -> None:
        """Execute the work before it. An event that was never recorded has passed, as in CUDA."""
        if self._stream is not None:
            self._stream.drain_until(self)


class EmulatedGraph:
    """Recorded work, and references to the objects that it uses."""

    def __init__(self) -> None:
        self.work: list[Work] = []
