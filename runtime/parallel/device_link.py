"""The base class of links between devices. See links.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.backend.base import Array
from runtime.parallel.collective import Collective, Message, Pending

Sizes = Sequence[Sequence[int]]


class DeviceLink(Collective):
    """A stream for copies, and reused memory for the arrays received."""

    def __init__(self, backend: Any, inner: Collective) -> None:
        self.backend, self.inner = backend, inner
        self.driver = backend.driver
        self.rank, self.size = inner.rank, inner.size
        self.stream = self.driver.stream()
        self._spare: dict[int, list[Array]] = {}
        self._lent: list[Array] = []

    def post(self, outgoing: Sequence[Message], sizes: Sizes) -> Pending:
        """See Collective."""
        # Before the event is recorded, so that earlier work on this memory has finished by then.
        incoming = [
            list(outgoing[peer]) if peer == self.rank else [self._take(n) for n in sizes[peer]]
            for peer in range(self.size)
        ]
        ready = self.driver.event()
        self.driver.record(ready)
        self.driver.wait(ready, self.stream)
        return self.start(outgoing, sizes, incoming, ready)

    def start(
        self, outgoing: Sequence[Message], sizes: Sizes, incoming: list[Message], ready: Any
    ) -> Pending:
        """Start the copies; the outgoing arrays are complete when the event `ready` has passed.

        Shapes: flat arrays; those of incoming[r] have the counts sizes[r].
        """
        raise NotImplementedError

    def release(self) -> None:
        """See Collective."""
        for array in self._lent:
            self._spare.setdefault(array.size, []).append(array)
        self._lent.clear()

    def abort(self) -> None:
        """See Collective."""
        self.inner.abort()

    def passed(self) -> Any:
        """Make later work on the compute stream wait for all copies so far; returns the event."""
        event = self.driver.event()
        self.driver.record(event, self.stream)
        self.driver.wait(event)
        return event

    def _take(self, count: int) -> Array:
        spare = self._spare.get(count)
        array = spare.pop() if spare else self.backend.memory.empty(count, self.backend.dtype)
        self._lent.append(array)
        return array
