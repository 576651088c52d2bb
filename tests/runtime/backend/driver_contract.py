"""What every Driver must do, on any hardware: each case takes an open driver."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Driver, OutOfMemoryError
from runtime.backend.cuda.memory import DeviceMemory
from runtime.backend.cuda.staging import Staging

SOURCE = Path(__file__).parents[2] / "cuda_kernels" / "sources" / "contract.cu"
F32 = np.dtype(np.float32)
Case = Callable[[Driver], None]
CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


def up(driver: Driver, memory: DeviceMemory, host: Any) -> DeviceArray:
    array = memory.empty(host.shape, host.dtype)
    driver.upload(host, array.address)
    return array


def down(driver: Driver, array: DeviceArray) -> Any:
    host = np.empty(array.shape, array.dtype)
    driver.download(array.address, host)
    return host


def scale(
    driver: Driver, x: DeviceArray, y: DeviceArray, factor: float, stream: Any = None
) -> None:
    kernel = driver.load(SOURCE)["scale"]
    driver.launch(kernel, (-(-x.size // 64), 1, 1), (64, 1, 1), (x, y, x.size, factor), 0, stream)


@case
def memory_is_aligned_and_keeps_what_is_written(driver: Driver) -> None:
    free = driver.free_memory()
    # A driver may count free memory in units of some megabytes.
    addresses = [driver.allocate(size) for size in (1, 100, 4096, 8 << 20)]
    assert all(address % 256 == 0 for address in addresses)
    during = driver.free_memory()
    assert during < free
    data = np.arange(100, dtype=np.uint8)
    driver.upload(data, addresses[1])
    driver.copy(addresses[1] + 10, addresses[2] + 7, 50)
    driver.fill_bytes(addresses[2] + 57, 9, 3)
    got = np.empty(53, np.uint8)
    driver.download(addresses[2] + 7, got)
    assert got.tolist() == [*range(10, 60), 9, 9, 9]
    for address in addresses:
        driver.free(address)
    assert driver.free_memory() > during


@case
def copies_of_nothing_are_nothing(driver: Driver) -> None:
    address = driver.allocate(4)
    empty = np.empty(0, np.float32)
    driver.upload(empty, address)
    driver.download(address, empty)
    driver.copy(address, address, 0)
    driver.fill_bytes(address, 1, 0)
    driver.free(address)


@case
def out_of_memory_names_the_sizes_requested_and_free(driver: Driver) -> None:
    size = driver.info.total_memory + 1
    with pytest.raises(OutOfMemoryError, match=f"out of memory; asked for {size} bytes, free are "):
        driver.allocate(size)


@case
def strided_host_arrays_are_refused(driver: Driver) -> None:
    address = driver.allocate(64)
    with pytest.raises(DeviceError, match=r"upload: a host array with strides \(8,\) for shape"):
        driver.upload(np.zeros(8, np.float32)[::2], address)
    with pytest.raises(DeviceError, match="download: a host array with strides"):
        driver.download(address, np.zeros((4, 4), np.float32).T)
    driver.free(address)


@case
def a_kernel_gets_every_type_of_argument(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    sent = up(driver, memory, np.array([1, 7], np.uint8))
    halves = up(driver, memory, np.array([1, 2, 3], np.uint16))
    out = memory.empty(10, np.dtype(np.float64))
    kernel = driver.load(SOURCE)["every_type"]
    args = (sent, 2.5, -3, -(1 << 40), 0.25, (1 << 63) + 2**12, 4_000_000_000, None, out, halves)
    driver.launch(kernel, (1, 1, 1), (10, 1, 1), args)
    assert down(driver, out).tolist() == [
        7.0, 2.5, -3.0, -(2.0**40), 0.25, 2.0**63 + 2**12, 4e9, 1.0, 3.0, 8.0
    ]  # fmt: skip


@case
def a_grid_has_three_dimensions(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    out = memory.empty(4 * 3 * 2 * 5 * 4 * 3, np.dtype(np.int32))
    kernel = driver.load(SOURCE)["positions"]
    driver.launch(kernel, (4, 3, 2), (5, 4, 3), (out,))
    np.testing.assert_array_equal(down(driver, out), np.arange(out.size))


@case
def an_empty_grid_runs_nothing(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    x = up(driver, memory, np.ones(4, np.float32))
    kernel = driver.load(SOURCE)["scale"]
    driver.launch(kernel, (0, 1, 1), (64, 1, 1), (x, x, 4, 2.0))
    assert down(driver, x).tolist() == [1, 1, 1, 1]


@case
def more_shared_memory_than_is_static(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    host = np.arange(5000, dtype=np.float32)
    x = up(driver, memory, host)
    kernel = driver.load(SOURCE)["reverse_dynamic"]
    for _ in range(2):
        driver.launch(kernel, (1, 1, 1), (1024, 1, 1), (x, 5000), 80000)
    np.testing.assert_array_equal(down(driver, x), host)


@case
def constants_and_kernels_are_read_from_the_source(driver: Driver) -> None:
    assert driver.constants(SOURCE) == {"BLOCK": 64}
    kernels = driver.load(SOURCE)
    assert kernels is driver.load(SOURCE)
    assert kernels["scale"].source == "contract"
    assert kernels["scale"].signature.max_threads == 64


@case
def launches_that_cannot_be_are_refused(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    x, whole = memory.empty(4, F32), memory.empty(4, np.dtype(np.int32))
    kernel = driver.load(SOURCE)["scale"]
    good = (x, x, 4, 2.0)

    def refused(words: str, grid: Any, block: Any, args: Any, shared: int = 0) -> None:
        with pytest.raises(DeviceError) as caught:
            driver.launch(kernel, grid, block, args, shared)
        assert words in str(caught.value)

    one = (1, 1, 1)
    refused("block (65, 1, 1) has 65 threads; expected 1 to 64", one, (65, 1, 1), good)
    refused("block (0, 1, 1) has 0 threads", one, (0, 1, 1), good)
    refused("grid (1, 65536, 1); expected at most", (1, 65536, 1), one, good)
    refused("grid (1, -1, 1); expected at most", (1, -1, 1), one, good)
    refused("1000000 bytes of dynamic shared memory; expected 0 to", one, one, good, 1000000)
    refused("argument 0 'x': expected an array of float32, got an array of int32", one, one,
            (whole, x, 4, 2.0))  # fmt: skip
    refused("argument 2 'n': expected int, got an array of float32", one, one, (x, x, x, 2.0))
    refused("argument 2 'n': expected int, got None", one, one, (x, x, None, 2.0))
    refused("argument 1 'y': expected an array of float32, got 7", one, one, (x, 7, 4, 2.0))
    refused("argument 2 'n': expected a value that fits int, got 2.5", one, one, (x, x, 2.5, 2.0))
    refused("expected 4 arguments (x, y, n, factor), got 5", one, one, (*good, 1))
    refused("expected 4 arguments (x, y, n, factor), got 3", one, one, good[:3])


@case
def work_on_streams_is_ordered_by_events(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    n = 1000
    x, y, z = (memory.empty(n, F32) for _ in range(3))
    side = driver.stream()
    pinned = driver.pinned(4 * n).view(np.float32)
    pinned[:] = np.arange(n)
    ready, scaled = driver.event(), driver.event()
    driver.record(ready)
    driver.wait(ready, side)
    driver.upload(pinned, x.address, side)
    scale(driver, x, y, 2.0, side)
    driver.record(scaled, side)
    driver.wait(scaled)
    scale(driver, y, z, 3.0)
    np.testing.assert_array_equal(down(driver, z), 6 * np.arange(n))
    back = driver.pinned(4 * n).view(np.float32)
    driver.download(y.address, back, side)
    driver.synchronize(side)
    np.testing.assert_array_equal(back, 2 * np.arange(n))
    driver.finish(scaled)
    driver.synchronize()


@case
def staging_hides_copies_and_keeps_their_order(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    staging = Staging(driver)
    batches = [np.full(500, float(i), np.float32) for i in range(6)]
    arrays = [memory.empty(500, F32) for _ in range(2)]
    free: list[Any] = [None, None]
    sums = [memory.empty(500, F32) for _ in batches]
    ticket = staging.send(batches[0], arrays[0])
    for i in range(len(batches)):
        staging.arrive(ticket)
        current = ticket.array
        if i + 1 < len(batches):
            ticket = staging.send(batches[i + 1], arrays[(i + 1) % 2], after=free[(i + 1) % 2])
        scale(driver, current, sums[i], 10.0)
        free[i % 2] = driver.event()
        driver.record(free[i % 2])
    for i, result in enumerate(sums):
        np.testing.assert_array_equal(down(driver, result), 10 * batches[i])
    with pytest.raises(DeviceError, match="staging: a host array of 8 bytes for a device array of"):
        staging.send(np.zeros(2, np.float32), arrays[0])


@case
def staging_waits_for_a_buffer_to_be_free(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    staging = Staging(driver)
    arrays = [memory.empty(50, F32) for _ in range(5)]
    tickets = [
        staging.send(np.full(50, float(i), np.float32), array) for i, array in enumerate(arrays)
    ]
    for i, ticket in enumerate(tickets):
        staging.arrive(ticket)
        assert down(driver, ticket.array)[0] == i


@case
def captured_launches_are_replayed(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    x = up(driver, memory, np.ones(100, np.float32))
    y, z = memory.empty(100, F32), memory.empty(100, F32)
    driver.load(SOURCE)

    def work() -> None:
        scale(driver, x, y, 2.0)
        driver.copy(y.address, z.address, 400)
        driver.fill_bytes(z.address, 0, 4)
        scale(driver, y, x, 1.0)

    graph = driver.capture(work)
    assert down(driver, x)[0] == 1
    for _ in range(3):
        driver.replay(graph)
    assert down(driver, x)[5] == 8
    assert down(driver, z)[:2].tolist() == [0, 8]


@case
def what_cannot_be_captured_is_refused(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    x = up(driver, memory, np.ones(100, np.float32))
    for work in (
        lambda: driver.synchronize(),
        lambda: driver.download(x.address, np.empty(100, np.float32)),
        lambda: driver.upload(np.ones(100, np.float32), x.address),
    ):
        with pytest.raises(DeviceError, match="captur"):
            driver.capture(work)
    # What failed leaves nothing behind.
    assert down(driver, x)[7] == 1


@case
def any_thread_may_call(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    x = up(driver, memory, np.ones(100, np.float32))
    results: list[Any] = []

    def work() -> None:
        y = memory.empty(100, F32)
        scale(driver, x, y, 5.0)
        results.append(down(driver, y))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    gc.collect()
    assert [result[3] for result in results] == [5, 5]
    scale(driver, x, x, 2.0)
    assert down(driver, x)[0] == 2


@case
def the_pool_uses_memory_again(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    first = memory.empty((10, 10), F32)
    view = first.view(50, (5, 10))
    address = first.address
    del first
    assert memory.empty(100, F32).address != address
    del view
    assert memory.empty(128, F32).address in (address, address)
    assert memory.held_bytes == memory.peak_bytes == 1024
    free = driver.free_memory()
    memory.trim()
    assert memory.held_bytes == 0
    assert driver.free_memory() >= free


@case
def a_large_upload_may_change_after_the_return(driver: Driver) -> None:
    memory = DeviceMemory(driver)
    count = min(16 << 20 if driver.name == "gpu" else 1 << 14, driver.info.total_memory // 64)
    x = memory.empty(count, F32)
    for factor in (1.0, 2.0):
        host = np.full(count, factor, np.float32)
        busy = up(driver, memory, host)
        for _ in range(3):
            scale(driver, busy, busy, 1.0)
        driver.upload(host, x.address)
        host.fill(-1.0)
        assert (down(driver, x) == factor).all()
