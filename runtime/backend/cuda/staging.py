"""Copies to the device that happen while it computes, by way of pinned host memory.

    ticket = staging.send(batch, array, after=event)   the copy begins once `event` has passed
    ...                                                work on other arrays goes on meanwhile
    staging.arrive(ticket)                             later compute work sees the batch in `array`

With two arrays in turn, and for `after` an event recorded behind the last use of the array, the
copy of a batch hides behind the work on the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prototxt_gen.errors import DeviceError
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Driver, Event


@dataclass(frozen=True)
class Ticket:
    """A copy under way."""

    arrived: Event
    array: DeviceArray


class Staging:
    """Pinned buffers in turn, and a stream for the copies."""

    def __init__(self, driver: Driver, slots: int = 2) -> None:
        self._driver = driver
        self._stream = driver.stream()
        self._buffers: list[HostArray] = [np.empty(0, np.uint8)] * slots
        self._events = [driver.event() for _ in range(slots)]
        self._turn = 0

    def send(self, host: HostArray, array: DeviceArray, after: Event | None = None) -> Ticket:
        """Begin to copy; the host array may be changed on return.

        Without `after` the copy waits for everything asked of the compute stream so far.

        Raises:
            DeviceError: the two are not of the same size.
        """
        if host.nbytes != array.nbytes:
            raise DeviceError(
                f"staging: a host array of {host.nbytes} bytes for a device array of "
                f"{array.nbytes}; expected the same size; check shapes and dtypes"
            )
        driver, slot = self._driver, self._turn
        self._turn = (slot + 1) % len(self._buffers)
        if self._buffers[slot].size < host.nbytes:
            driver.synchronize(self._stream)
            self._buffers[slot] = driver.pinned(host.nbytes)
        driver.finish(self._events[slot])
        pinned = self._buffers[slot][: host.nbytes]
        np.copyto(pinned, np.ascontiguousarray(host).reshape(-1).view(np.uint8))
        if after is None:
            after = driver.event()
            driver.record(after)
        driver.wait(after, self._stream)
        driver.upload(pinned, array.address, self._stream)
        driver.record(self._events[slot], self._stream)
        arrived = driver.event()
        driver.record(arrived, self._stream)
        return Ticket(arrived, array)

    def arrive(self, ticket: Ticket) -> None:
        """Let later compute work wait for the copy."""
        self._driver.wait(ticket.arrived)
