"""Uploads through a ring of pinned memory, on a stream that runs as late as it may."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.backend.cuda.upload_ring import UploadRing

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

SIZE = 4096


class LateDriver(EmulatorDriver):
    """A driver whose compute stream runs nothing until the host waits for it."""

    def __init__(self) -> None:
        super().__init__(streams="early")
        self.waits = 0
        self.allocated_pinned: list[int] = []

    def pinned(self, size: int) -> Any:
        self.allocated_pinned.append(size)
        return super().pinned(size)

    def finish(self, event: Any) -> None:
        self.waits += 1
        super().finish(event)


@pytest.fixture
def driver() -> Iterator[LateDriver]:
    opened = LateDriver()
    yield opened
    opened.close()


def ring_of(driver: LateDriver) -> UploadRing:
    return UploadRing(driver._compute, SIZE)


@pytest.mark.parametrize("seed", range(3))
def test_the_array_may_change_after_the_return(driver: LateDriver, seed: int) -> None:
    rng, ring = np.random.default_rng(seed), ring_of(driver)
    sizes = rng.integers(1, 2 * SIZE, 60)
    address = driver.allocate(int(sizes.sum()))
    expected, start = [], 0
    for size in sizes:
        host = rng.integers(0, 256, size, np.uint8)
        expected.append(host.copy())
        ring.send(driver, host, address + start)
        host.fill(0)
        start += int(size)
    result = np.empty(start, np.uint8)
    driver.download(address, result)
    np.testing.assert_array_equal(result, np.concatenate(expected))
    assert driver.allocated_pinned == [SIZE]


def test_small_uploads_do_not_wait_for_the_device(driver: LateDriver) -> None:
    ring, address = ring_of(driver), driver.allocate(8)
    for number in range(SIZE // 256):
        ring.send(driver, np.array([number], np.int64), address)
    assert driver.waits == 0
    ring.send(driver, np.array([99], np.int64), address)
    assert driver.waits == 1
    result = np.empty(1, np.int64)
    driver.download(address, result)
    assert result[0] == 99


@pytest.mark.parametrize("size", [SIZE // 4, SIZE, 3 * SIZE + 5])
def test_arrays_larger_than_the_ring(driver: LateDriver, size: int) -> None:
    ring, address = ring_of(driver), driver.allocate(size)
    for factor in (1, 3):
        host = (np.arange(size) * factor).astype(np.uint8)
        expected = host.copy()
        ring.send(driver, host, address)
        host.fill(7)
    result = np.empty(size, np.uint8)
    driver.download(address, result)
    np.testing.assert_array_equal(result, expected)
