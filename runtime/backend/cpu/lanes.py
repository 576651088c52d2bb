"""Lanes: worker threads with their own scratch memory, which compute the pieces of an op.

NumPy and BLAS release the interpreter lock while they compute, so threads run in parallel. The
pieces of an op depend only on its geometry, each is computed by one thread with a single-threaded
BLAS, and sums over pieces are taken in a fixed order. The bits therefore do not depend on the
number of lanes.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from prototxt_gen.errors import DeviceError
from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray

Task = Callable[["Lane", int, int], None]
_ALIGNMENT = 64


class Runner(Protocol):
    """Runs a task over a range: one lane, or all lanes."""

    def run(self, task: Task, count: int, grain: int = 1) -> None:
        """Call `task(lane, start, stop)` for pieces of `grain` from 0 to count, in any order."""


def aligned_empty(count: int, dtype: np.dtype[Any]) -> HostArray:
    """A flat array of unspecified contents that starts on a cache line. Shapes: (count,)."""
    size = count * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype)


class Lane:
    """The scratch memory of one thread; as a Runner, it runs all pieces itself."""

    def __init__(self) -> None:
        self._scratch: dict[str, HostArray] = {}
        self._zeros = np.zeros(0, np.float64)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostArray:
        """Memory with a name, reused from call to call; its contents are unspecified.

        Shapes: `shape`.
        """
        count = 1
        for dim in shape:
            count *= dim
        size = count * dtype.itemsize
        buffer = self._scratch.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._scratch[name] = aligned_empty(size, np.dtype(np.uint8))
        return buffer[:size].view(dtype).reshape(shape)

    def zeros(self, count: int, dtype: np.dtype[Any]) -> HostArray:
        """Read-only zeros: np.maximum is three times as fast with an array as with 0.

        Shapes: (count,).
        """
        if self._zeros.size < count:
            self._zeros = np.zeros(count, np.float64)
        return self._zeros.view(dtype)[:count]

    def scratch_bytes(self) -> int:
        """The memory kept for later calls. Units: bytes."""
        return sum(buffer.nbytes for buffer in self._scratch.values()) + self._zeros.nbytes

    def run(self, task: Task, count: int, grain: int = 1) -> None:
        """See Runner.run."""
        for start in range(0, count, grain):
            task(self, start, min(start + grain, count))


class Lanes:
    """The lanes of one backend. Threads that call it have separate scratch memory.

    The calling thread is the first lane. All callers share the worker threads, which a forked child
    process starts again.

    Raises:
        DeviceError: `threads` is below 1.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = default_threads() if threads is None else threads
        if self.threads < 1:
            raise DeviceError(
                f"cpu backend: threads is {threads}; expected at least 1; omit it to use every core"
            )
        self._own = threading.local()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    @property
    def lanes(self) -> list[Lane]:
        """The calling thread's lanes."""
        lanes: list[Lane] | None = getattr(self._own, "lanes", None)
        if lanes is None:
            lanes = self._own.lanes = [Lane() for _ in range(self.threads)]
        return lanes

    @property
    def first(self) -> Lane:
        return self.lanes[0]

    def run(self, task: Task, count: int, grain: int = 1) -> None:
        """See Runner.run."""
        helpers = min(self.threads, ceil_div(count, grain)) - 1
        if helpers < 1:
            self.in_turn(task, count, grain)
            return
        pool, lanes = self._workers(), self.lanes
        starts, jobs = itertools.count(0, grain), []
        try:
            # In the block: after an interrupt, no helper may continue into the next op.
            for lane in lanes[1 : 1 + helpers]:
                jobs.append(pool.submit(_work, lane, task, starts, count, grain))
            _work(lanes[0], task, starts, count, grain)
        finally:
            errors = [job.exception() for job in jobs]
        for error in errors:
            if error is not None:
                raise error

    def _workers(self) -> ThreadPoolExecutor:
        """The worker threads of this process."""
        pool = self._pool
        if pool is None or pool[0] != os.getpid():
            executor = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="lane")
            pool = self._pool = (os.getpid(), executor)
        return pool[1]

    def in_turn(self, task: Task, count: int, grain: int = 1) -> None:
        """Run a task in the lane of the calling thread; the task may use all lanes."""
        _work(self.first, task, itertools.count(0, grain), count, grain)

    def scratch_bytes(self) -> int:
        """See Lane.scratch_bytes; the sum over the lanes of the calling thread."""
        return sum(lane.scratch_bytes() for lane in self.lanes)


def _work(lane: Lane, task: Task, starts: itertools.count[int], count: int, grain: int) -> None:
    """Run pieces until none is left. `next` on a shared counter is atomic.

    Infinity and NaN give no warnings, as on other devices: the solver checks the loss.
    """
    with np.errstate(all="ignore"):
        for start in starts:
            if start >= count:
                return
            task(lane, start, min(start + grain, count))


def default_threads() -> int:
    """OMP_NUM_THREADS if it is set, else the number of cores that this process may use."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    if value.isdigit() and int(value) > 0:
        return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_blas_threads() -> None:
    """Limit NumPy's BLAS to the calling thread, for the whole process.

    The lanes are threads already, and results of a BLAS that divides products over threads may
    depend on their number.
    """
    from threadpoolctl import ThreadpoolController

    ThreadpoolController().limit(limits=1, user_api="blas")
