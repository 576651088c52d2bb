"""The base of links: how one device posts copies of arrays to others. See links.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.backend.base import Array
from runtime.parallel.collective import Collective, Parcel, Pending

Sizes = Sequence[Sequence[int]]


class DeviceLink:
    """Base: a stream for copies, and memory to receive in that is used again."""

    in_process = False

    def __init__(self, backend: Any, inner: Collective) -> None:
        self.backend, self.inner = backend, inner
        self.driver = backend.driver
        self.rank, self.size = inner.rank, inner.size
        self.stream = self.driver.stream()
        self._spare: dict[int, list[Array]] = {}
        self._lent: list[Array] = []

    def post(self, outgoing: Sequence[Parcel], sizes: Sizes) -> Pending:
        """See Collective."""
        # Taken before the event: whoever used this memory last on the compute stream is done.
        incoming = [
            list(outgoing[peer]) if peer == self.rank else [self._take(n) for n in sizes[peer]]
            for peer in range(self.size)
        ]
        ready = self.driver.event()
        self.driver.record(ready)
        self.driver.wait(ready, self.stream)
        return self.start(outgoing, sizes, incoming, ready)

    def start(
        self, outgoing: Sequence[Parcel], sizes: Sizes, incoming: list[Parcel], ready: Any
    ) -> Pending:
        """Begin the copies; what is sent is whole once `ready` has passed."""
        raise TypeError(f"{type(self).__name__}: a link must define start")

    def exchange(self, outgoing: Sequence[Parcel], sizes: Sizes) -> list[Parcel]:
        """See Collective."""
        return self.post(outgoing, sizes).finish()

    def release(self) -> None:
        """See Collective."""
        for array in self._lent:
            self._spare.setdefault(array.size, []).append(array)
        self._lent.clear()

    def abort(self) -> None:
        """See Collective."""
        self.inner.abort()

    def close(self) -> None:
        """See Collective."""

    def passed(self) -> Any:
        """An event behind all copies so far, for which later compute work waits."""
        event = self.driver.event()
        self.driver.record(event, self.stream)
        self.driver.wait(event)
        return event

    def _take(self, count: int) -> Array:
        spare = self._spare.get(count)
        array = spare.pop() if spare else self.backend.memory.empty(count, self.backend.dtype)
        self._lent.append(array)
        return array
