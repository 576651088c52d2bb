from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda import open_driver
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.backend.cuda.memory import DeviceMemory
from tests.runtime.backend.driver_contract import CASES, F32, SOURCE, Case, down, scale, up

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, which builds the kernels for the emulator"
)

WAYS: list[dict[str, Any]] = [
    {},
    {"order": "reversed", "streams": "late"},
    {"order": "shuffled", "seed": 5, "streams": "early"},
]


@pytest.fixture(params=WAYS, ids=lambda way: way.get("streams", "eager"))
def driver(request: pytest.FixtureRequest) -> Iterator[EmulatorDriver]:
    opened = EmulatorDriver(memory=1 << 24, **request.param)
    yield opened
    opened.close()


@pytest.mark.parametrize("contract", CASES, ids=lambda case: case.__name__)
def test_contract(contract: Case, driver: EmulatorDriver) -> None:
    contract(driver)


def test_it_is_opened_by_name() -> None:
    driver = open_driver("emu", 0, order="reversed")
    assert (driver.name, driver.info.arch) == ("emu", 90)
    with pytest.raises(DeviceError, match="driver 'tpu' is unknown; expected one of gpu, emu"):
        open_driver("tpu")


def test_a_wait_that_is_missing_shows_when_streams_lag() -> None:
    results = []
    for streams in ("eager", "late"):
        driver = EmulatorDriver(streams=streams)
        memory = DeviceMemory(driver)
        x, y = memory.empty(10, F32), memory.empty(10, F32)
        pinned = driver.pinned(40).view(np.float32)
        pinned[:] = 1
        driver.upload(pinned, x.address, driver.stream())
        scale(driver, x, y, 2.0)
        results.append(down(driver, y)[0])
    assert results[0] == 2
    assert np.isnan(results[1])


def test_overwriting_what_is_still_needed_shows_when_the_compute_stream_lags() -> None:
    results = []
    for streams in ("eager", "early"):
        driver = EmulatorDriver(streams=streams)
        memory = DeviceMemory(driver)
        x, y = up(driver, memory, np.ones(10, np.float32)), memory.empty(10, F32)
        driver.synchronize()
        scale(driver, x, y, 2.0)
        driver.upload(np.full(10, 50, np.float32), x.address, driver.stream())
        results.append(down(driver, y)[0])
    assert results == [2, 100]


def test_memory_that_is_lent_again_is_nan() -> None:
    driver = EmulatorDriver()
    memory = DeviceMemory(driver)
    first = up(driver, memory, np.ones(10, np.float32))
    address = first.address
    del first
    second = memory.empty(9, F32)
    assert second.address == address
    assert np.isnan(down(driver, second)).all()


@pytest.mark.parametrize(
    ("size", "beyond"), [(9, 36), (100, 400)], ids=["in the slack", "of its own"]
)
def test_writes_beyond_what_was_lent_are_seen(size: int, beyond: int) -> None:
    driver = EmulatorDriver()
    memory = DeviceMemory(driver)
    x, y = memory.empty(size, F32), memory.empty(size, F32)
    kernel = driver.load(SOURCE)["scale"]
    # What is read beyond the end is what a fence is made of, and still it shows: in place as well.
    for target in (x, y):
        with pytest.raises(DeviceError, match=f"wrote beyond the end .* of {beyond} bytes"):
            driver.launch(kernel, (8, 1, 1), (64, 1, 1), (x, target, size + 1, 1.0))


def test_a_fence_that_is_copied_into_another_shows() -> None:
    driver = EmulatorDriver()
    memory = DeviceMemory(driver)
    x, y = memory.empty(10, F32), memory.empty(10, F32)
    kernel = driver.load(SOURCE.with_name("faults.cu"))["copy"]
    with pytest.raises(DeviceError, match=r"'copy': it wrote beyond the end .* of 40 bytes"):
        driver.launch(kernel, (1, 1, 1), (64, 1, 1), (x, y, 11))


def test_copies_outside_of_allocations_are_refused() -> None:
    driver = EmulatorDriver()
    address = driver.allocate(64)
    data = np.zeros(100, np.uint8)
    with pytest.raises(DeviceError, match=r"emu: upload of 100 bytes at .*, which extends for 64 "):
        driver.upload(data, address)
    with pytest.raises(DeviceError, match="emu: download of 100 bytes"):
        driver.download(address, data)
    with pytest.raises(DeviceError, match="emu: copy to of 64 bytes"):
        driver.copy(address, address + 32, 64)
    with pytest.raises(DeviceError, match="emu: fill of 65 bytes"):
        driver.fill_bytes(address, 0, 65)
    driver.free(address)
    with pytest.raises(DeviceError, match="which extends for 0 bytes"):
        driver.upload(data, address)


def test_a_kernel_may_not_be_given_memory_that_is_gone() -> None:
    driver = EmulatorDriver()
    memory = DeviceMemory(driver)
    x = memory.empty(10, F32)
    driver.free(x.address)
    with pytest.raises(DeviceError, match="emu: kernel 'scale': array of 40 bytes at"):
        scale(driver, x, x, 1.0)


def test_lending_needs_an_allocation() -> None:
    driver = EmulatorDriver()
    address = driver.allocate(64)
    with pytest.raises(
        DeviceError, match=r"emu: 1000 bytes are lent at .* where no such allocation"
    ):
        driver.lend(address, 1000)


def test_allocation_is_refused_while_launches_are_captured() -> None:
    driver = EmulatorDriver(device_id=3)
    with pytest.raises(
        DeviceError, match="emu 3: allocate while launches are captured; expected launches, copies"
    ):
        driver.capture(lambda: driver.allocate(4) and None)


def test_a_peers_memory_is_guarded_on_both_ends() -> None:
    mine, peer = EmulatorDriver(), EmulatorDriver(1)
    assert mine.can_access_peer(peer) and not EmulatorDriver(peers=False).can_access_peer(mine)
    here, there = mine.allocate(64), peer.allocate(64)
    mine.copy_peer(peer, there, here, 64)
    with pytest.raises(DeviceError, match="emu: peer copy from of 65 bytes"):
        mine.copy_peer(peer, there, here, 65)
    with pytest.raises(DeviceError, match="emu: peer copy to of 64 bytes"):
        mine.copy_peer(peer, there, here + 8, 64)
