"""Rates of the device that the models of kernels assume: units, caches, copies; and rounding."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda.array import DeviceArray

SOURCE = Path(__file__).with_name("probes.cu")
_FLOAT = np.dtype(np.float32)
_UNIT = float(np.finfo(np.float32).eps)
Row = dict[str, Any]


class Probe:
    """The kernels of probes.cu on a backend; `full` for sizes whose times are meaningful."""

    def __init__(self, backend: Any, full: bool) -> None:
        self.backend, self.driver = backend, backend.driver
        self.kernels = self.driver.load(SOURCE)
        constants = self.driver.constants(SOURCE)
        self.block, self.chains = constants["BLOCK"], constants["CHAINS"]
        self.unrolled = constants["UNROLLED"]
        self.blocks = 8 * self.driver.info.multiprocessors if full else 2
        self.trips = 4096 if full else 2
        self.full = full
        self.out = self.array(self.blocks * self.block)

    def array(self, count: int) -> DeviceArray:
        """Zeros. Shapes: (count,)."""
        array: DeviceArray = self.backend.memory.empty(count, _FLOAT)
        self.backend.memory.fill(array, 0.0)
        return array

    def launch(self, kernel: str, *args: Any) -> None:
        grid, block = (self.blocks, 1, 1), (self.block, 1, 1)
        self.driver.launch(self.kernels[kernel], grid, block, args)

    def seconds(self, work: Callable[[], None]) -> float:
        """The median time of a work until the device is done."""
        times = []
        for _ in range(4):
            self.driver.synchronize()
            start = time.perf_counter()
            work()
            self.driver.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])


def probes(backend: Any, full: bool) -> Iterator[Row]:
    """One row per probe; a probe that fails gives the error."""
    try:
        probe = Probe(backend, full)
    except DeviceError as error:
        yield {"probe": "kernels", "error": str(error)}
        return
    for name, measured in PROBES.items():
        try:
            yield {"probe": name, **measured(probe)}
        except DeviceError as error:
            yield {"probe": name, "error": str(error)}


def _rate(kernel: str, flop_per_thread: Callable[[Probe], float], *args: Any) -> Any:
    def measured(probe: Probe) -> Row:
        seconds = probe.seconds(lambda: probe.launch(kernel, probe.out, probe.trips, *args))
        flop = flop_per_thread(probe) * probe.trips * probe.blocks * probe.block
        return {"tflops": 1e-12 * flop / seconds}

    return measured


def _cache(probe: Probe) -> Row:
    """Reads of an array that fits into the second-level cache."""
    quads = (4 << 20) // 16 if probe.full else 256
    x = probe.array(4 * quads)
    work = lambda: probe.launch("read_rate", x, probe.out, quads, probe.trips // 8 or 1)  # noqa: E731
    read = 16 * probe.unrolled * (probe.trips // 8 or 1) * probe.blocks * probe.block
    return {"gigabytes_per_second": 1e-9 * read / probe.seconds(work)}


def _copy(probe: Probe) -> Row:
    count = 1 << 27 if probe.full else 1 << 10
    x, y = probe.array(count), probe.array(count)
    seconds = probe.seconds(lambda: probe.backend.memory.copy(x, y))
    return {"gigabytes_per_second": 8e-9 * count / seconds}


def _upload(probe: Probe) -> Row:
    """An upload of an array that the caller changes at once, behind work of the device."""
    count = 1 << 24 if probe.full else 1 << 10
    host, x = np.ones(count, np.float32), probe.array(count)
    returned = []

    def work() -> None:
        probe.launch("ffma_rate", probe.out, probe.trips, 0.5)
        start = time.perf_counter()
        probe.backend.memory.upload(host, x)
        returned.append(time.perf_counter() - start)

    seconds = probe.seconds(work)
    host.fill(2.0)
    check = np.empty(count, np.float32)
    probe.backend.memory.upload(host, x)
    host.fill(3.0)
    probe.backend.memory.download(x, check)
    rate = 4e-9 * count / seconds
    return {"gigabytes_per_second": rate, "return_ms": 1e3 * statistics.median(returned),
            "intact": bool((check == 2.0).all())}  # fmt: skip


def _rounding(probe: Probe) -> Row:
    """How sums on tensor cores are rounded, in units in the last place of 1."""
    out = probe.array(3)
    probe.driver.launch(probe.kernels["tf32_rounding"], (1, 1, 1), (32, 1, 1), (out,))
    host = np.empty(3, np.float32)
    probe.backend.memory.download(out, host)
    steps = [float(value) for value in (host.astype(np.float64) - 1.0) / _UNIT]
    return {"of_0.75_units": steps[0], "of_1.5_units": steps[1], "of_0.25_units": steps[2]}


PROBES: dict[str, Callable[[Probe], Row]] = {
    "mma bf16": _rate("mma_bf16_rate", lambda p: p.chains * 2 * 16 * 8 * 16 / 32),
    "mma tf32": _rate("mma_tf32_rate", lambda p: p.chains * 2 * 16 * 8 * 8 / 32),
    "ffma": _rate("ffma_rate", lambda p: 2.0 * p.chains * p.unrolled, 0.5),
    "ffma with shared memory": _rate("ffma_shared_rate", lambda p: 8.0 * p.chains, 0.5),
    "cache read": _cache,
    "copy": _copy,
    "upload": _upload,
    "tf32 rounding": _rounding,
}
