"""Values that change from pass to pass, in device memory, where recorded launches read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.backend.base import Draw
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Driver
from runtime.backend.cuda.memory import DeviceMemory

_CLOCK = np.dtype(np.uint64)
_RATE = np.dtype(np.float32)
_WORD = (1 << 64) - 1


class PassBlock:
    """The number of the pass, and the learning rates of an update in the order of their use.

    A recorded op reads a value from the block only if the block holds the value passed to the op.
    All other values remain arguments, and a tape in which an argument changes is never replayed.
    """

    def __init__(self, driver: Driver, memory: DeviceMemory) -> None:
        self._driver = driver
        self._memory = memory
        self._clock: DeviceArray | None = None
        self._rate_array: DeviceArray | None = None
        self._rates: list[float] = []
        self._taken = 0
        self.pass_number = 0

    def write(self, pass_number: int, rates: Sequence[float]) -> None:
        """Upload both to the device, in the order of the compute stream."""
        self.pass_number = pass_number
        self._rates, self._taken = [float(rate) for rate in rates], 0
        if self._clock is None:
            self._clock = self._memory.empty(1, _CLOCK)
        self._driver.upload(np.array([pass_number & _WORD], _CLOCK), self._clock.address)
        if not rates:
            return
        if self._rate_array is None or self._rate_array.size < len(rates):
            self._rate_array = self._memory.empty(len(rates), _RATE)
        self._driver.upload(np.array(self._rates, _RATE), self._rate_array.address)

    def place(self, draw: Draw, samples: int) -> tuple[DeviceArray | None, int]:
        """The array of the pass number, and the offset to add to the number of its first sample.

        Shapes: (1,), or None before the first `write`.
        """
        return self._clock, draw.first_sample - self.pass_number * samples

    def take_rate(self, rate: float) -> DeviceArray | None:
        """The array of the next rate, None if that is another rate. Shapes: (1,)."""
        index = self._taken
        if self._rate_array is None or index >= len(self._rates) or self._rates[index] != rate:
            return None
        self._taken += 1
        return self._rate_array.view(index, (1,))
