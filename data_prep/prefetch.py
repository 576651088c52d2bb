"""Batches made ahead of the solver by worker threads.

Decoding and arithmetic release the interpreter lock, so threads do run beside each other. Which
thread makes an image never shows: an image is a function of (seed, stream, iteration, index).
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.batch import FATAL, ImageLoader, RecordSource, empty_batch
from data_prep.batch_request import Arrays, BatchRequest, Labels, as_data_error
from data_prep.sampler import Sampler
from data_prep.transform import Floats, TransformSpec
from prototxt_gen.errors import DataError, ProtoError, ShapeError

DEFAULT_PREFETCH = 4
"""Batches kept ready, as DataParameter.prefetch."""
MOST_PREFETCH = 64
"""Batches kept ready at most, however many are asked for: they all take memory."""
_LARGEST_RUN = 8
_POSITIONS = 1 << 63


def default_workers() -> int:
    """A worker for each core this process may use, 8 at most: reading seldom needs more."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(8, len(os.sched_getaffinity(0))))
    return max(1, min(8, os.cpu_count() or 1))


class _Pipeline:
    """The queue of requests and the threads that fill it; holds no reference to its reader.

    The threads exist in the process that made the pipeline, not in its forked children.
    """

    def __init__(
        self,
        loader: ImageLoader,
        shape: tuple[int, int, int],
        window: tuple[int, int],
        workers: int,
        prefetch: int,
    ) -> None:
        self.process = os.getpid()
        self._loader, self._shape, self._window = loader, shape, window
        self._prefetch = prefetch
        self._changed = threading.Condition()
        self._queue: deque[BatchRequest] = deque()
        self._spare: list[Arrays] = []
        self._failure: DataError | None = None
        self.stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"data-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def _new_request(self, iteration: int, first: int, count: int) -> BatchRequest:
        arrays = None if self._loader.sizes_vary(count) else self._arrays(count)
        request = BatchRequest(self._loader, (iteration, first, count), self._shape[0], arrays)
        self._queue.append(request)
        return request

    def _arrays(self, count: int) -> Arrays:
        while self._spare:
            arrays = self._spare.pop()
            if len(arrays[1]) == count:
                return arrays
        return empty_batch(count, self._shape, self._loader.spec.dtype)

    def _guess(self) -> None:
        """Ask for what the consumer will want next: the rest of its window, then the next's."""
        iteration, first, count = self._queue[-1].name
        low, high = self._window
        first += count
        if first >= high:
            iteration, first = iteration + 1, low
        self._new_request(iteration, first, min(count, high - first))

    def _next_rows(self) -> tuple[BatchRequest, range] | None:
        """Rows for a worker, or None where there is nothing to do."""
        while self._queue:
            for request in self._queue:
                if request.open:
                    share = request.count // (4 * len(self._threads))
                    return request, request.take(max(1, min(_LARGEST_RUN, share)))
            if len(self._queue) > self._prefetch:
                return None
            self._guess()
        return None

    def _work(self) -> None:
        while True:
            with self._changed:
                try:
                    task = self._next_rows()
                    while task is None and not self.stopped:
                        self._changed.wait()
                        task = self._next_rows()
                except Exception as cause:  # noqa: BLE001  the consumer raises it, as DataError
                    self._failure = as_data_error(cause, "data: making the next batch ahead")
                    self._changed.notify_all()
                    return
                if self.stopped or task is None:
                    return
            request, rows = task
            request.make(rows)
            with self._changed:
                request.settle(rows)
                if not request.left or rows == range(1):
                    self._changed.notify_all()

    def fetch(self, iteration: int, first: int, count: int) -> BatchRequest:
        """Wait for a request, made ahead or not, and take it out of the queue."""
        name = (iteration, first, count)
        with self._changed:
            if any(request.name == name for request in self._queue):
                while self._queue[0].name != name:
                    self._queue.popleft()
            else:
                self._queue.clear()
                self._new_request(*name)
                self._changed.notify_all()
            request = self._queue[0]
            while request.left and not self.stopped and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            if self.stopped:
                raise DataError("data: the reader was closed; open a new one")
            if len(self._queue) == 1:
                self._guess()
            self._queue.popleft()
            self._changed.notify_all()
            return request

    def give_back(self, data: Floats, labels: Labels) -> None:
        """Keep the arrays of a request that the consumer has copied."""
        with self._changed:
            if len(self._spare) <= self._prefetch and data.shape[1:] == self._shape:
                self._spare.append((data, labels))

    def stop(self) -> None:
        """End the threads; each finishes its current image. Does nothing in a forked child."""
        if os.getpid() != self.process:
            return
        with self._changed:
            self.stopped = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()


class BatchReader:
    """Reads transformed batches in the order of a sampler, ahead of the consumer.

    `batch_size` counts the records of a whole iteration (all shards, all of iter_size); a replica
    that reads only images low .. high-1 of each says `window=(low, high)`. Any part of any
    iteration may be read at any time, by one thread; consecutive parts of the window are what is
    made ahead. With workers=0 the caller's thread makes everything. In a forked child the reader
    starts workers of its own.

    Without a crop the images that are read together have the size of their first, as in Caffe, and
    those of another `read` may have another; `shape` is that of the first usable record.

    `wait_seconds` is the time `read` has spent waiting; `images` is the number of images read.
    """

    def __init__(
        self,
        source: RecordSource,
        batch_size: int,
        transform: TransformSpec,
        sampler: Sampler,
        seed: int = 0,
        stream: int = 0,
        *,
        workers: int | None = None,
        prefetch: int = DEFAULT_PREFETCH,
        window: tuple[int, int] | None = None,
        on_error: str = FATAL,
        num_labels: int | None = None,
    ) -> None:
        self._loader = ImageLoader(
            source, transform, sampler, batch_size, seed, stream, on_error, num_labels
        )
        low, high = window or (0, batch_size)
        if not 0 <= low < high <= batch_size:
            raise ProtoError(
                f"data: a window of {low} to {high}; expected a part of 0 to {batch_size}"
            )
        self.shape = self._loader.image_shape()
        self.wait_seconds = 0.0
        self.images = 0
        self._closed = False
        self._window, self._prefetch = (low, high), min(max(1, prefetch), MOST_PREFETCH)
        self._workers = default_workers() if workers is None else workers
        self._pipeline: _Pipeline | None = None
        self._finalizer: Callable[[], object] | None = None
        if self._workers > 0:
            self._pipeline = self._start_workers()

    def _start_workers(self) -> _Pipeline:
        pipeline = _Pipeline(self._loader, self.shape, self._window, self._workers, self._prefetch)
        # Runs when the reader is dropped, and before the interpreter ends: a thread inside OpenCV
        # at that point may crash.
        self._finalizer = weakref.finalize(self, pipeline.stop)
        return pipeline

    def read(
        self,
        iteration: int,
        first_index: int,
        count: int,
        data: npt.NDArray[Any] | None = None,
        labels: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return images first_index .. first_index+count-1 of an iteration, and their labels.

        Shapes: data (count, C, H, W), labels (count,). Where the caller gives arrays they are
        filled and returned, else the caller owns what is returned.

        Raises:
            DataError, ShapeError: a record cannot be used; the message has its key.
            ShapeError: the images are of another size than the given array.
        """
        if count < 1 or not 0 <= first_index <= self._loader.batch_size - count:
            raise DataError(
                f"data: images {first_index} to {first_index + count - 1} of a batch of "
                f"{self._loader.batch_size}; expected a part of the batch"
            )
        if not 0 <= iteration < _POSITIONS // self._loader.batch_size:
            raise DataError(
                f"data: iteration {iteration} of {self._loader.batch_size} images; expected a "
                "position below 2**63; the state that the data goes on from is damaged"
            )
        started = time.perf_counter()
        if self._closed:
            raise DataError("data: the reader was closed; open a new one")
        if self._pipeline is None:
            request = self._make(iteration, first_index, count)
        else:
            if self._pipeline.process != os.getpid():
                self._pipeline = self._start_workers()
            request = self._pipeline.fetch(iteration, first_index, count)
        self.wait_seconds += time.perf_counter() - started
        if request.errors or request.data is None:
            raise request.errors[min(request.errors)]
        self.images += count
        if data is None or labels is None:
            return request.data, request.labels
        if data.shape != request.data.shape:
            raise ShapeError(
                f"data: images of shape {request.data.shape}; expected {data.shape}, the shape of "
                "the given array; read without an array to get each size"
            )
        np.copyto(data, request.data, casting="same_kind")
        np.copyto(labels, request.labels, casting="same_kind")
        if self._pipeline is not None:
            self._pipeline.give_back(request.data, request.labels)
        return data, labels

    def _make(self, iteration: int, first: int, count: int) -> BatchRequest:
        """Images made by the caller's thread."""
        arrays = None
        if not self._loader.sizes_vary(count):
            arrays = empty_batch(count, self.shape, self._loader.spec.dtype)
        request = BatchRequest(self._loader, (iteration, first, count), self.shape[0], arrays)
        while request.open:
            rows = request.take(count)
            request.make(rows)
            request.settle(rows)
        return request

    @property
    def loader(self) -> ImageLoader:
        """What makes the images."""
        return self._loader

    def close(self) -> None:
        """End the workers. Does nothing the second time."""
        self._closed = True
        if self._finalizer is not None:
            self._finalizer()

    def __enter__(self) -> BatchReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
