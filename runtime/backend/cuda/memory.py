"""One pool of device memory and one workspace per driver; freed blocks are used again.

memory = DeviceMemory(driver)
x = memory.empty((n, c, h, w), np.dtype(np.float32))    lives as long as x or a view of it
scratch = memory.workspace(nbytes)                      until the next call, for one op
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from prototxt_gen.errors import DeviceError
from prototxt_gen.integers import round_up
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Driver, OutOfMemoryError

_SMALL, _LARGE = 512, 2 << 20
# A cached block is used for a request when at most this share of it remains unused.
_IDLE = 1 / 8


class Block:
    """A block of device memory, which returns to the pool when it is no longer referenced."""

    __slots__ = ("_returned", "address", "capacity")

    def __init__(self, address: int, capacity: int, returned: deque[tuple[int, int]]) -> None:
        self.address = address
        self.capacity = capacity
        self._returned = returned

    def is_of(self, returned: deque[tuple[int, int]]) -> bool:
        """Whether this block returns to the pool with that list."""
        return self._returned is returned

    def __del__(self) -> None:
        # Any thread may drop the last reference, even during a method of the pool. An append needs
        # no lock.
        self._returned.append((self.address, self.capacity))


class DeviceMemory:
    """The pool. Returned blocks are used again, in the order of the compute stream.

    A block that another stream reads or writes must stay referenced until that work is done.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.held_bytes = 0
        """The bytes that the pool has allocated on the device, in use or not."""
        self.peak_bytes = 0
        self.given = 0
        """The number of arrays allocated so far."""
        self.growths = 0
        """The number of times the workspace was replaced by a larger one."""
        self._returned: deque[tuple[int, int]] = deque()
        self._cached: dict[int, list[int]] = {}  # capacity -> addresses
        self._workspace: Block | None = None

    def empty(self, shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Allocate an array of this shape and dtype; its contents are unspecified.

        Raises:
            DeviceError: out of memory; the message gives the sizes requested and free.
        """
        shape = (shape,) if isinstance(shape, int) else shape
        array = DeviceArray(0, shape, np.dtype(dtype), None)
        block = self._block(array.nbytes)
        array.address, array.owner = block.address, block
        return array

    def workspace(self, nbytes: int) -> DeviceArray:
        """The workspace that all ops share, valid until the next call.

        Its contents are unspecified. It grows to the largest request and does not shrink.

        Shapes: (at least nbytes,) uint8.
        """
        if self._workspace is None or self._workspace.capacity < nbytes:
            self.growths += 1
            self._workspace = None  # so that the old one is used again or freed first
            self._workspace = self._block(nbytes)
        else:
            self.driver.lend(self._workspace.address, nbytes)
        return DeviceArray(self._workspace.address, (nbytes,), np.dtype(np.uint8), self._workspace)

    def owns(self, array: DeviceArray) -> bool:
        """Whether an array of any shape is in memory of this pool."""
        return isinstance(array.owner, Block) and array.owner.is_of(self._returned)

    @property
    def total_bytes(self) -> int:
        """See DeviceCapacity."""
        return self.driver.info.total_memory

    @property
    def free_bytes(self) -> int:
        """See DeviceCapacity."""
        return self.driver.free_memory()

    @property
    def workspace_bytes(self) -> int:
        """The size of the workspace in bytes."""
        return self._workspace.capacity if self._workspace is not None else 0

    def expect_room(self, nbytes: int, purpose: str) -> None:
        """See DeviceCapacity."""
        self.trim()
        if nbytes > self.driver.free_memory():
            raise self._exhausted(nbytes, f" for {purpose}")

    def close(self) -> None:
        """Drop the workspace, and free the blocks that are not in use."""
        self._workspace = None
        self.trim()

    def trim(self) -> None:
        """Free the blocks that are not in use."""
        self._collect()
        for capacity, addresses in self._cached.items():
            for address in addresses:
                self.driver.free(address)
                self.held_bytes -= capacity
        self._cached.clear()

    def _block(self, nbytes: int) -> Block:
        self.given += 1
        unit = _SMALL if nbytes < _LARGE else _LARGE
        capacity = max(unit, round_up(nbytes, unit))
        self._collect()
        address, capacity = self._reuse(capacity) or (self._allocate(capacity), capacity)
        self.driver.lend(address, nbytes)
        return Block(address, capacity, self._returned)

    def _reuse(self, capacity: int) -> tuple[int, int] | None:
        """Address and capacity of the smallest cached block that fits."""
        fitting = [c for c in self._cached if capacity <= c and (c - capacity) <= c * _IDLE]
        if not fitting:
            return None
        best = min(fitting)
        address = self._cached[best].pop()
        if not self._cached[best]:
            del self._cached[best]
        return address, best

    def _allocate(self, capacity: int) -> int:
        try:
            address = self.driver.allocate(capacity)
        except OutOfMemoryError:
            self.trim()
            try:
                address = self.driver.allocate(capacity)
            except OutOfMemoryError as cause:
                raise self._exhausted(capacity) from cause
        self.held_bytes += capacity
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        return address

    def _exhausted(self, nbytes: int, purpose: str = "") -> DeviceError:
        driver = self.driver
        return OutOfMemoryError(
            f"{driver.name} {driver.device_id} ({driver.info.name}): out of memory; asked for "
            f"{_size(nbytes)}{purpose}, free are {_size(driver.free_memory())} of "
            f"{_size(driver.info.total_memory)}, this run holds {_size(self.held_bytes)}; use a "
            "smaller batch_size, more GPUs (--gpu 0,1), or stop other programs on the device"
        )

    def _collect(self) -> None:
        while self._returned:
            address, capacity = self._returned.popleft()
            self._cached.setdefault(capacity, []).append(address)


def _size(nbytes: int) -> str:
    if nbytes >= 1 << 30:
        return f"{nbytes / (1 << 30):.2f} GiB"
    if nbytes >= 1 << 20:
        return f"{nbytes / (1 << 20):.1f} MiB"
    return f"{nbytes} bytes"
