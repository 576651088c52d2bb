"""Runs a kernel of tests/cuda_kernels/sources on the emulator: arrays go in, arrays come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Argument, Driver, Extent
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.backend.cuda.memory import DeviceMemory

SOURCES = Path(__file__).parent / "sources"
ORDERS = ("forward", "reversed", "shuffled")

Host = npt.NDArray[Any]


class Bench:
    """A driver with its memory; `run` takes host arrays and numbers."""

    def __init__(self, driver: Driver | None = None, **options: Any) -> None:
        self.driver: Driver = driver or EmulatorDriver(**options)
        self.memory = DeviceMemory(self.driver)

    def up(self, host: Host) -> DeviceArray:
        array = self.memory.empty(host.shape, host.dtype)
        self.driver.upload(np.ascontiguousarray(host), array.address)
        return array

    def down(self, array: DeviceArray) -> Host:
        host: Host = np.empty(array.shape, array.dtype)
        self.driver.download(array.address, host)
        return host

    def run(
        self,
        source: str,
        kernel: str,
        args: tuple[Host | int | float | None, ...],
        grid: Extent = (1, 1, 1),
        block: Extent = (32, 1, 1),
        shared_bytes: int = 0,
    ) -> list[Host]:
        """Launch, and give every array as it is afterwards."""
        on_device: list[Argument] = [self.up(a) if isinstance(a, np.ndarray) else a for a in args]
        kernels = self.driver.load(SOURCES / f"{source}.cu")
        self.driver.launch(kernels[kernel], grid, block, on_device, shared_bytes)
        return [self.down(a) for a in on_device if isinstance(a, DeviceArray)]


def in_all_orders(
    source: str, kernel: str, args: tuple[Host | int | float | None, ...], **launch: Any
) -> list[Host]:
    """Launch in every order; the bits must be the same."""
    results = [Bench(order=order, seed=3).run(source, kernel, args, **launch) for order in ORDERS]
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert one.tobytes() == two.tobytes(), f"{kernel}: the order of threads shows"
    return results[0]
