"""The pool over a driver that only counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import DeviceInfo, OutOfMemoryError
from runtime.backend.cuda.memory import DeviceMemory

U8 = np.dtype(np.uint8)
MIB = 1 << 20


class Counting:
    """Allocates addresses one after another, up to its size."""

    name, device_id = "gpu", 1
    info = DeviceInfo("counter", (9, 0), 1, 64 * MIB, 48 << 10)

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.lent: list[tuple[int, int]] = []
        self._next = 256

    def allocate(self, size: int) -> int:
        if size > self.free_memory():
            raise OutOfMemoryError("full")
        self._next += size
        self.sizes[self._next - size] = size
        return self._next - size

    def free(self, address: int) -> None:
        del self.sizes[address]

    def lend(self, address: int, size: int) -> None:
        self.lent.append((address, size))

    def free_memory(self) -> int:
        return self.info.total_memory - sum(self.sizes.values())


@pytest.fixture
def driver() -> Any:
    return Counting()


def test_small_requests_are_rounded_a_little_and_large_ones_to_pages(driver: Any) -> None:
    memory = DeviceMemory(driver)
    arrays = [memory.empty(n, U8) for n in (0, 1, 513, 2 * MIB - 1, 2 * MIB + 1)]
    assert list(driver.sizes.values()) == [512, 512, 1024, 2 * MIB, 4 * MIB]
    assert [size for _, size in driver.lent] == [0, 1, 513, 2 * MIB - 1, 2 * MIB + 1]
    assert [array.nbytes for array in arrays] == [0, 1, 513, 2 * MIB - 1, 2 * MIB + 1]


def test_a_block_serves_again_where_little_lies_idle(driver: Any) -> None:
    memory = DeviceMemory(driver)
    addresses = [memory.empty(n * MIB, U8).address for n in (8, 16)]
    assert memory.empty(16 * MIB, U8).address == addresses[1]
    assert memory.empty(14 * MIB, U8).address == addresses[1]
    assert memory.empty(12 * MIB, U8).address not in addresses
    assert memory.held_bytes == 36 * MIB


def test_unused_memory_is_freed_before_memory_runs_out(driver: Any) -> None:
    memory = DeviceMemory(driver)
    memory.empty(40 * MIB, U8)
    kept = memory.empty(8 * MIB, U8)
    large = memory.empty(50 * MIB, U8)
    assert sorted(driver.sizes.values()) == [8 * MIB, 50 * MIB]
    assert memory.held_bytes == kept.nbytes + large.nbytes
    assert memory.peak_bytes == 58 * MIB


def test_out_of_memory_advises_what_to_change(driver: Any) -> None:
    memory = DeviceMemory(driver)
    held = memory.empty(40 * MIB, U8)
    with pytest.raises(OutOfMemoryError) as caught:
        memory.empty((30, MIB), U8)
    assert str(caught.value) == (
        "gpu 1 (counter): out of memory; asked for 30.0 MiB, free are 24.0 MiB of 64.0 MiB, this "
        "run holds 40.0 MiB; use a smaller batch_size, more GPUs (--gpu 0,1), or stop other "
        "programs on the device"
    )
    assert held.nbytes == 40 * MIB


def test_a_run_that_will_not_fit_is_refused_before_it_begins(driver: Any) -> None:
    memory = DeviceMemory(driver)
    memory.empty(40 * MIB, U8)
    memory.expect_room(64 * MIB, "net 'D'")
    with pytest.raises(OutOfMemoryError) as caught:
        memory.expect_room(65 * MIB, "net 'D'")
    assert "out of memory; asked for 65.0 MiB for net 'D', free are 64.0 MiB" in str(caught.value)


def test_the_workspace_is_one_and_grows(driver: Any) -> None:
    memory = DeviceMemory(driver)
    assert memory.workspace_bytes == 0
    first = memory.workspace(1000)
    assert memory.workspace(500).address == first.address
    assert driver.lent[-1] == (first.address, 500)
    assert memory.workspace_bytes == 1024
    larger = memory.workspace(5000)
    assert larger.address != first.address
    assert memory.workspace(1000).address == larger.address
    assert memory.workspace(1000).shape == (1000,)


def test_a_view_lies_within_its_array() -> None:
    array = DeviceArray(1000, (4, 5), np.dtype(np.float32), None)
    part = array.view(5, (3, 5))
    assert (part.address, part.shape, part.size, part.nbytes) == (1020, (3, 5), 15, 60)
    assert array.view(20, (0,)).size == 0
    for offset, shape in ((6, (3, 5)), (-1, (2,)), (21, (0,))):
        with pytest.raises(ShapeError, match=r"expected them within an array of 20 elements; "):
            array.view(offset, shape)
    assert repr(part) == "DeviceArray(0x3fc, (3, 5), float32)"
