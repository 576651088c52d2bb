"""Pinned memory through which uploads pass, so that the caller's array may change at once.

CUDA may read pageable memory after an asynchronous copy has returned. The ring copies the bytes to
pinned memory first. It waits only when the part that it needs is still read by an earlier copy.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np

from prototxt_gen.integers import round_up
from runtime.backend.base import HostArray

RING_BYTES = 16 << 20
_PARTS = 4
_ALIGNED = 256


class RingDriver(Protocol):
    """The calls of a Driver that the ring uses."""

    def pinned(self, size: int) -> HostArray: ...

    def upload(self, host: HostArray, address: int, stream: Any = None) -> None: ...

    def event(self) -> Any: ...

    def record(self, event: Any, stream: Any = None) -> None: ...

    def finish(self, event: Any) -> None: ...


class UploadRing:
    """A ring of pinned memory for uploads on one stream, allocated at the first upload."""

    def __init__(self, stream: Any, size: int = RING_BYTES) -> None:
        self._stream = stream
        self._size = size
        self._memory: HostArray | None = None
        self._next = 0
        self._busy: deque[tuple[int, int, Any]] = deque()
        """First byte, end and event of the copies that may not be complete, in their order."""

    def send(self, driver: RingDriver, host: HostArray, address: int) -> None:
        """Start a copy to the device, in parts; the array may change after the return.

        Shapes: any, C-contiguous.
        """
        if self._memory is None:
            self._memory = driver.pinned(self._size)
        source, largest = host.reshape(-1).view(np.uint8), self._size // _PARTS
        for first in range(0, source.size, largest):
            part = source[first : first + largest]
            start = self._reserve(driver, part.size)
            pinned = self._memory[start : start + part.size]
            np.copyto(pinned, part)
            driver.upload(pinned, address + first, self._stream)
            event = driver.event()
            driver.record(event, self._stream)
            self._busy.append((start, start + part.size, event))

    def _reserve(self, driver: RingDriver, size: int) -> int:
        """The first byte of a part that no copy reads."""
        start = self._next if self._next + size <= self._size else 0
        wrapped = start < self._next
        end = start + size
        while self._busy:
            first, stop, event = self._busy[0]
            # Copies from `_next` on are older than all others.
            skipped = wrapped and first >= self._next
            if not skipped and (first >= end or stop <= start):
                break
            driver.finish(event)
            self._busy.popleft()
        self._next = round_up(end, _ALIGNED)
        return start
