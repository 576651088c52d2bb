"""Streams of the emulated device: queues that may lag as far behind as CUDA allows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from prototxt_gen.errors import DeviceError

Work = Callable[[], None]


class EmulatedStream:
    """A queue of work. A late one does nothing until somebody waits for it."""

    def __init__(self, late: bool) -> None:
        self.late = late
        self._queue: deque[Work] = deque()

    def submit(self, work: Work) -> None:
        """Do it now, or when somebody waits."""
        if self.late:
            self._queue.append(work)
        else:
            work()

    def drain(self) -> None:
        """Do everything that was asked for."""
        while self._queue:
            self._queue.popleft()()

    def drain_until(self, event: EmulatedEvent) -> None:
        """Do what lies before the event."""
        while event.pending and self._queue:
            self._queue.popleft()()


class EmulatedEvent:
    """A point in a stream, and when it was passed."""

    def __init__(self) -> None:
        self.pending = 0
        self._stream: EmulatedStream | None = None
        self._passed_at = 0.0

    def record(self, stream: EmulatedStream) -> None:
        """Put the event behind all work of the stream so far."""
        self._stream = stream
        self.pending += 1
        stream.submit(self._pass)

    def _pass(self) -> None:
        self.pending -= 1
        self._passed_at = time.perf_counter()

    def wait(self) -> None:
        """Let it pass. One that was never recorded has passed: so CUDA has it."""
        if self._stream is not None:
            self._stream.drain_until(self)

    def seconds_since(self, start: EmulatedEvent) -> float:
        """Time between two events.

        Raises:
            DeviceError: one of them was never recorded.
        """
        start.wait()
        self.wait()
        if self._stream is None or start._stream is None:
            raise DeviceError(
                "emu: the time between two events, of which one was never recorded; expected "
                "both recorded; call record(event) first"
            )
        return self._passed_at - start._passed_at


class EmulatedGraph:
    """Recorded work, and whatever must stay alive for it."""

    def __init__(self) -> None:
        self.work: list[Work] = []
