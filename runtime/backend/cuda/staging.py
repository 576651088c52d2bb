"""Copies to the device that overlap with computation, through pinned host memory.

    ticket = staging.send(batch, array, after=event)   the copy begins once `event` has passed
    ...                                                other compute work runs at the same time
    staging.arrive(ticket)                             later compute work reads the batch in `array`

With two arrays by turns, and with `after` an event recorded after the last use of the array, the
copy of a batch overlaps with the work on the previous one.
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
    """A copy that was started."""

    arrived: Event
    array: DeviceArray


class Staging:
    """Pinned buffers, used by turns, and a stream for the copies."""

    def __init__(self, driver: Driver, slots: int = 2) -> None:
        self._driver = driver
        self._stream = driver.stream()
        self._buffers: list[HostArray] = [np.empty(0, np.uint8)] * slots
        self._events = [driver.event() for _ in range(slots)]
        self._turn = 0

    def send(self, host: HostArray, array: DeviceArray, after: Event | None = None) -> Ticket:
        """Start a copy; the host array may change after the return.

        Without `after` the copy waits for all work of the compute stream so far.

        Shapes: any, with the same number of bytes.

        Raises:
            DeviceError: the arrays differ in size.
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
        """Make later compute work wait for the copy."""
        self._driver.wait(ticket.arrived)
