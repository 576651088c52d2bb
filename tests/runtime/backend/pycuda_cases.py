"""Run by test_driver_pycuda.py in a process where the fake driver library is the machine's own.

Two devices of 16 MiB each.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda.driver import OutOfMemoryError
from runtime.backend.cuda.driver_pycuda import PyCudaDriver
from runtime.backend.cuda.memory import DeviceMemory
from runtime.cli.main import main
from tests.cuda_kernels.bench import Bench
from tests.fakecuda.build import ROOT
from tests.runtime.backend.driver_contract import CASES, F32, SOURCE, Case, down, scale, up
from tests.runtime.net.replayed import same, trained, weights


@pytest.fixture
def driver() -> Iterator[PyCudaDriver]:
    opened = PyCudaDriver(0)
    yield opened
    opened.close()


@pytest.mark.parametrize("contract", CASES, ids=lambda case: case.__name__)
def test_contract(contract: Case, driver: PyCudaDriver) -> None:
    contract(driver)


def test_the_properties_of_the_device(driver: PyCudaDriver) -> None:
    info = driver.info
    assert (info.name, info.arch, info.multiprocessors) == ("fake GPU", 90, 132)
    assert (info.total_memory, info.shared_per_block) == (1 << 24, 227 << 10)


def test_two_devices_in_one_thread_and_in_two() -> None:
    drivers = [PyCudaDriver(i) for i in range(2)]
    memories = [DeviceMemory(driver) for driver in drivers]
    arrays = [
        up(driver, memory, np.full(10, 1 + i, np.float32))
        for i, (driver, memory) in enumerate(zip(drivers, memories, strict=True))
    ]

    def work(i: int) -> None:
        for _ in range(3):
            scale(drivers[i], arrays[i], arrays[i], 2.0)

    for i in (0, 1, 0):
        work(i)
    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert down(drivers[0], arrays[0])[0] == 2**9
    assert down(drivers[1], arrays[1])[0] == 2 * 2**6
    # From one device to the other.
    drivers[0].copy(arrays[0].address, arrays[1].address, 40)
    assert down(drivers[1], arrays[1])[0] == 2**9
    for driver in drivers:
        driver.close()
        driver.close()


def test_a_device_reads_its_peers() -> None:
    drivers = [PyCudaDriver(0), PyCudaDriver(1), PyCudaDriver(0)]
    memories = [DeviceMemory(driver) for driver in drivers]
    arrays = [
        up(driver, memory, np.full(10, 1 + i, np.float32))
        for i, (driver, memory) in enumerate(zip(drivers, memories, strict=True))
    ]
    for reader, owner in ((0, 1), (2, 1), (0, 2), (1, 0)):
        assert drivers[reader].can_access_peer(drivers[owner])
        assert drivers[reader].can_access_peer(drivers[owner])
        fresh = up(drivers[reader], memories[reader], np.zeros(10, np.float32))
        stream = drivers[reader].stream()
        source = arrays[owner]
        drivers[reader].copy_peer(
            drivers[owner], source.address, fresh.address, source.nbytes, stream
        )
        drivers[reader].synchronize(stream)
        assert (down(drivers[reader], fresh) == 1 + owner).all()
        assert drivers[reader].native_stream(stream) > 0
    for driver in drivers:
        driver.close()


def test_memory_comes_back_when_a_driver_is_closed_or_forgotten() -> None:
    kept = PyCudaDriver(1)
    kept.load(SOURCE)
    free = kept.free_memory()
    closed = PyCudaDriver(1)
    closed.allocate(4 << 20)
    closed.pinned(100)
    closed.load(SOURCE)
    assert kept.free_memory() == free - (4 << 20)
    closed.close()
    assert kept.free_memory() == free
    forgotten = PyCudaDriver(1)
    forgotten.allocate(4 << 20)
    del forgotten
    gc.collect()
    assert kept.free_memory() == free
    kept.close()


def test_the_pool_trims_before_it_gives_up(driver: PyCudaDriver) -> None:
    memory = DeviceMemory(driver)
    memory.empty(12 << 20, np.dtype(np.uint8))
    held = memory.empty(10 << 20, np.dtype(np.uint8))
    with pytest.raises(OutOfMemoryError) as caught:
        memory.empty(8 << 20, np.dtype(np.uint8))
    assert str(caught.value).startswith(
        "gpu 0 (fake GPU): out of memory; asked for 8.0 MiB, free are 6.0 MiB of 16.0 MiB, this "
        "run holds 10.0 MiB; use a smaller batch_size"
    )
    assert held.nbytes == 10 << 20


def test_a_kernel_that_fails_is_named(driver: PyCudaDriver) -> None:
    x = np.zeros(128, np.float32)
    with pytest.raises(DeviceError) as caught:
        Bench(driver).run("faults", "return_before_barrier", (x, x, 128), block=(128, 1, 1))
    words = str(caught.value)
    assert words.startswith(
        "gpu 0 (fake GPU): launch of kernel 'return_before_barrier': cuLaunchKernel failed: kernel "
    )
    assert "divergent __syncthreads" in words
    assert words.endswith("run the same with --device emu, which names it")


def test_events_are_used_again(driver: PyCudaDriver) -> None:
    first = driver.event()
    raw = first.raw
    del first
    assert driver.event().raw is raw


def test_kernels_of_newer_devices_only(driver: PyCudaDriver) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(64).astype(np.float32)
    bench = Bench(driver)
    rounded = bench.run("tensor", "rounded", (x, 0 * x, 0 * x, 64), block=(64, 1, 1))[1]
    np.testing.assert_allclose(rounded, x, rtol=2**-10)


LEFT_OPEN = """
import numpy as np
from tests.runtime.backend.driver_contract import *
from runtime.backend.cuda.driver_pycuda import PyCudaDriver
drivers = [PyCudaDriver(0), PyCudaDriver(1), PyCudaDriver(0)]
for driver in drivers:
    memory = DeviceMemory(driver)
    x = up(driver, memory, np.ones(10, np.float32))
    scale(driver, x, x, 3.0)
    driver.event(), driver.stream(), driver.pinned(10)
    print(down(driver, x)[0])
"""


def test_a_process_may_end_with_drivers_open() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3.0\n" * 3, "")


def test_device_query(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device_query", "-gpu", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("Device id:")] == ["0", "1"]
    assert lines[3] == "Name:                          fake GPU"
    assert main(["device_query", "--gpu", "1", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)["devices"]
    assert [entry["device_id"] for entry in described] == [1]
    assert described[0]["multiprocessors"] == 132
    assert main(["device_query", "--gpu", "1", "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("Self-check of GPU 1: ") and "families passed" in lines[-1]
    assert main(["device_query", "--gpu", "1", "--check", "--json"]) == 0
    (faults,) = json.loads(capsys.readouterr().out)["self_check"].values()
    assert len(faults) > 20 and not any(faults.values())
    assert main(["device_query", "--gpu", "2"]) == 2
    assert "gpu 2: no such GPU; there are 2, from 0 to 1" in capsys.readouterr().err


def test_the_backend_is_opened_over_it() -> None:
    from runtime.backend.registry import create_backend

    backend: Any = create_backend("gpu", 1)
    x = backend.memory.empty(4, F32)
    backend.memory.fill(x, 2.5)
    host = np.empty(4, np.float32)
    backend.memory.download(x, host)
    assert host.tolist() == [2.5] * 4


def test_graphs_without_references_are_destroyed(driver: PyCudaDriver) -> None:
    memory = DeviceMemory(driver)
    x = up(driver, memory, np.ones(10, np.float32))
    driver.load(SOURCE)
    held = driver.capture(lambda: scale(driver, x, x, 2.0))
    for _ in range(5):
        driver.replay(driver.capture(lambda: scale(driver, x, x, 3.0)))
    assert driver.graphs == 2
    driver.replay(held)
    assert down(driver, x)[0] == 2 * 3**5


def test_training_is_replayed_to_the_same_bits() -> None:
    settings = 'lr_policy: "poly" power: 1 iter_size: 2'
    replayed, plain = (trained("gpu", settings, True, replay=on) for on in (True, False))
    backend: Any = replayed.net.backend
    assert backend.recorder.replays >= 40
    assert same(weights(replayed), weights(plain))
