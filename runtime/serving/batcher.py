"""Collects requests of several threads into batches for one net."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from prototxt_gen.errors import DeviceError
from runtime.backend.base import HostArray

Predict = Callable[[HostArray], HostArray]
"""From a batch (N,C,H,W) to the rows of its samples."""


@dataclass(frozen=True)
class _Request:
    array: HostArray
    future: Future[HostArray] = field(default_factory=Future)


class Batcher:
    """A thread that runs `predict` on the requests that are waiting, at most `most` at a time.

    A batch waits at most `wait` seconds for further requests after its first.

    Shapes: every request has the same shape.
    """

    def __init__(self, predict: Predict, most: int, wait: float) -> None:
        self.sizes: list[int] = []
        """How many batches of 0, 1, 2, ... samples were run."""
        self._predict, self._most, self._wait = predict, most, wait
        self.sizes = [0] * (most + 1)
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="verydeep batches", daemon=True)
        self._thread.start()

    def submit(self, array: HostArray) -> Future[HostArray]:
        """Put a sample in the queue; the future has its row, or the error of its batch.

        Raises:
            DeviceError: the batcher is closed.
        """
        request = _Request(array)
        with self._lock:
            if self._closed:
                raise DeviceError(
                    "the net is closed; expected a running server; start the server again"
                )
            self._waiting.put(request)
        return request.future

    def close(self) -> None:
        """Finish the requests in the queue, and stop the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._collect()
            if batch:
                self._answer(batch)

    def _collect(self) -> tuple[list[_Request], bool]:
        """The next batch, and whether further ones may follow."""
        first = self._waiting.get()
        if first is None:
            return [], False
        batch, deadline = [first], time.monotonic() + self._wait
        while len(batch) < self._most:
            try:
                request = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if request is None:
                return batch, False
            batch.append(request)
        return batch, True

    def _answer(self, batch: list[_Request]) -> None:
        wanted = [request for request in batch if request.future.set_running_or_notify_cancel()]
        if not wanted:
            return
        self.sizes[len(wanted)] += 1
        try:
            rows = self._predict(np.stack([request.array for request in wanted]))
        except Exception as cause:  # noqa: BLE001  each request reports the error
            for request in wanted:
                request.future.set_exception(cause)
            return
        for request, row in zip(wanted, rows, strict=True):
            request.future.set_result(row)
