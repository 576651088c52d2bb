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
from data_prep.sampler import Sampler
from data_prep.transform import Floats, TransformSpec
from prototxt_gen.errors import DataError, ProtoError, VerydeepError

Labels = npt.NDArray[np.float32]
_Arrays = tuple[Floats, Labels]

DEFAULT_PREFETCH = 4
"""Batches kept ready, as DataParameter.prefetch."""
_LARGEST_RUN = 8


def default_workers() -> int:
    """A worker for each core this process may use, 8 at most: reading seldom needs more."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(8, len(os.sched_getaffinity(0))))
    return max(1, min(8, os.cpu_count() or 1))


def _typed(cause: Exception, where: str) -> DataError:
    error = DataError(
        f"{where}: {cause!r}; expected a record that can be read; "
        "the cause shown with this error says where it failed"
    )
    error.__cause__ = cause
    return error


class _Request:
    """Images first .. first+count-1 of an iteration, and how far they are made."""

    def __init__(self, loader: ImageLoader, iteration: int, first: int, arrays: _Arrays) -> None:
        self.name = (iteration, first, len(arrays[1]))
        self.data, self.labels = arrays
        self.handed_out = 0
        self.left = self.count
        self.errors: dict[int, VerydeepError] = {}
        self._loader = loader
        self._words = loader.draw(iteration, first, self.count)

    @property
    def count(self) -> int:
        return self.name[2]

    def take(self, most: int) -> range:
        """Hand out the next rows to be made."""
        rows = range(self.handed_out, min(self.count, self.handed_out + most))
        self.handed_out = rows.stop
        return rows

    def make(self, rows: range) -> None:
        """Make rows; what goes wrong is kept for the consumer."""
        iteration, first, _ = self.name
        for row in rows:
            try:
                self.labels[row] = self._loader.load(
                    iteration, first + row, self._words[row], self.data[row]
                )
            except VerydeepError as error:
                self.errors[row] = error
            except Exception as cause:  # noqa: BLE001  the consumer raises it, as DataError
                self.errors[row] = _typed(cause, f"image {first + row} of iteration {iteration}")


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
        self._queue: deque[_Request] = deque()
        self._spare: list[_Arrays] = []
        self._failure: DataError | None = None
        self.stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"data-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def _new_request(self, iteration: int, first: int, count: int) -> _Request:
        arrays = None
        while self._spare and arrays is None:
            arrays = self._spare.pop()
            if len(arrays[1]) != count:
                arrays = None
        if arrays is None:
            arrays = empty_batch(count, self._shape, self._loader.spec.dtype)
        request = _Request(self._loader, iteration, first, arrays)
        self._queue.append(request)
        return request

    def _guess(self) -> None:
        """Ask for what the consumer will want next: the rest of its window, then the next's."""
        iteration, first, count = self._queue[-1].name
        low, high = self._window
        first += count
        if first >= high:
            iteration, first = iteration + 1, low
        self._new_request(iteration, first, min(count, high - first))

    def _next_rows(self) -> tuple[_Request, range] | None:
        """Rows for a worker, or None where there is nothing to do."""
        while self._queue:
            for request in self._queue:
                if request.handed_out < request.count:
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
                    self._failure = _typed(cause, "data: making the next batch ahead")
                    self._changed.notify_all()
                    return
                if self.stopped or task is None:
                    return
            request, rows = task
            request.make(rows)
            with self._changed:
                request.left -= len(rows)
                if not request.left:
                    self._changed.notify_all()

    def fetch(self, iteration: int, first: int, count: int) -> _Request:
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

    def give_back(self, request: _Request) -> None:
        """Keep the arrays of a request that the consumer has copied."""
        with self._changed:
            if len(self._spare) <= self._prefetch:
                self._spare.append((request.data, request.labels))

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
        self._window, self._prefetch = (low, high), max(1, prefetch)
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
        """
        if count < 1 or not 0 <= first_index <= self._loader.batch_size - count:
            raise DataError(
                f"data: images {first_index} to {first_index + count - 1} of a batch of "
                f"{self._loader.batch_size}; expected a part of the batch"
            )
        started = time.perf_counter()
        if self._closed:
            raise DataError("data: the reader was closed; open a new one")
        if self._pipeline is None:
            arrays = empty_batch(count, self.shape, self._loader.spec.dtype)
            request = _Request(self._loader, iteration, first_index, arrays)
            request.make(request.take(count))
        else:
            if self._pipeline.process != os.getpid():
                self._pipeline = self._start_workers()
            request = self._pipeline.fetch(iteration, first_index, count)
        self.wait_seconds += time.perf_counter() - started
        if request.errors:
            raise request.errors[min(request.errors)]
        self.images += count
        if data is None or labels is None:
            return request.data, request.labels
        np.copyto(data, request.data, casting="same_kind")
        np.copyto(labels, request.labels, casting="same_kind")
        if self._pipeline is not None:
            self._pipeline.give_back(request)
        return data, labels

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
