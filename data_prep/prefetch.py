"""Batches that worker threads make ahead of the solver.

Decoding and arithmetic release the interpreter lock, so the threads run in parallel. Results do not
depend on which thread makes an image.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep import datum as datums
from data_prep.datum import Floats, Image, write_bytes
from data_prep.philox import Words
from data_prep.read_plan import FATAL, MOST_PREFETCH, ReadPlan, default_workers
from data_prep.transform import write
from prototxt_gen.errors import DataError, ShapeError, VerydeepError

_MOST_SKIPPED = 1000
_LARGEST_RUN = 8
_LOG = logging.getLogger("verydeep.data")


@dataclass(eq=False)
class Batch:
    """Images and labels. The input blob is data, or (data - offsets) * scale if there are offsets.

    Shapes: data (N, C, H, W), float32, or uint8 with offsets (N, C); labels (N,).
    """

    data: npt.NDArray[Any]
    labels: Floats
    offsets: Floats | None = None
    scale: float = 1.0

    @classmethod
    def empty(cls, count: int, shape: tuple[int, ...], scale: float | None = None) -> Batch:
        """A batch to be filled; of bytes if `scale` is given. Shapes: `shape` is (C, H, W)."""
        labels = np.empty(count, np.float32)
        if scale is None:
            return cls(np.empty((count, *shape), np.float32), labels)
        offsets = np.zeros((count, shape[0]), np.float32)
        return cls(np.empty((count, *shape), np.uint8), labels, offsets, scale)


class _Images:
    """Makes single images of a plan, in any number of threads. `shape` is that of the first."""

    def __init__(self, plan: ReadPlan) -> None:
        self.plan = plan
        self._decoded: dict[int, tuple[Image, int] | None] = {}
        image = self._probe()
        self.shape = plan.transform.output_shape(*image.shape)
        as_bytes = plan.as_bytes and plan.transform.keeps_bytes and image.dtype == np.uint8
        self.scale = plan.transform.scale if as_bytes else None
        """The scale of batches of bytes; None if batches are floats."""
        self._writer = write_bytes if as_bytes else plan.writer

    def _probe(self) -> Image:
        """The first usable image; it is kept until it is read, so that it is decoded once."""
        for record in range(min(len(self.plan.source), _MOST_SKIPPED)):
            try:
                image, label = self._decode(record, self._name(record))
            except DataError as error:
                self._skip(error)
            else:
                self._decoded[record] = image, label
                return image
        raise self._none_usable(0)

    def _name(self, record: int) -> str:
        return f"record {self.plan.source.key(record)}"

    def _decode(self, record: int, name: str) -> tuple[Image, int]:
        message = datums.parse(self.plan.source.get(record), name)
        return datums.image_of(message, name, self.plan.transform.mode), int(message.label)

    def make(self, first: int, words: Words, batch: Batch | None, count: int, row: int) -> Batch:
        """Make one row of a batch of `count` images; without a batch, create one of its size.

        If the record `first` cannot be used, a later one may take its place.

        Raises:
            DataError, ShapeError: the record cannot be used and `on_error` is fatal.
        """
        total = len(self.plan.source)
        for step in range(min(total, _MOST_SKIPPED)):
            record = (first + step) % total
            try:
                return self._make(record, words, batch, count, row)
            except (DataError, ShapeError) as error:
                self._skip(error)
        raise self._none_usable(first)

    def _make(self, record: int, words: Words, batch: Batch | None, count: int, row: int) -> Batch:
        channels, name = self.shape[0], self._name(record)
        image, label = self._decoded.pop(record, None) or self._decode(record, name)
        sample = self.plan.transform.sample(image, words, channels, name)
        if batch is None:
            batch = Batch.empty(count, (channels, *sample.pixels.shape[:2]), self.scale)
        write(sample, batch.data[row], self._writer)
        batch.labels[row] = label
        if batch.offsets is not None:
            batch.offsets[row] = 0.0 if sample.offsets is None else sample.offsets
        return batch

    def _skip(self, error: DataError | ShapeError) -> None:
        if self.plan.on_error == FATAL:
            raise error
        _LOG.warning("skipped: %s", error)

    def _none_usable(self, first: int) -> DataError:
        tried = min(len(self.plan.source), _MOST_SKIPPED)
        return DataError(
            f"{self._name(first)}: neither it nor the {tried - 1} records after it can be used; "
            "the log has the reason for each; make the database again"
        )


def _as_data_error(cause: Exception, name: str) -> DataError:
    """Wrap an unexpected error in one of the typed family."""
    error = DataError(
        f"{name}: {cause!r}; expected a record that can be read; "
        "the cause shown with this error has its place in the code"
    )
    error.__cause__ = cause
    return error


class BatchRequest:
    """Images first .. first+count-1 of an iteration, and which of them have been made.

    Without a batch to fill, the first image determines the size of all and is made before them.
    """

    def __init__(self, images: _Images, name: tuple[int, int, int], batch: Batch | None) -> None:
        self.name = name
        self.batch = batch
        self.started = 0
        self.left = self.count
        self.errors: dict[int, VerydeepError] = {}
        self._images = images
        self._records, self._words = images.plan.samples(*name)

    @property
    def count(self) -> int:
        """The number of images."""
        return self.name[2]

    @property
    def open(self) -> bool:
        """Whether there are rows that can be started now."""
        return self.started < self.count and (self.batch is not None or not self.started)

    def take(self, most: int) -> range:
        """Start the next rows, at most `most`."""
        stop = min(self.count, self.started + most) if self.batch is not None else 1
        rows = range(self.started, stop)
        self.started = rows.stop
        return rows

    def make(self, rows: range) -> None:
        """Make rows; errors are kept for the consumer."""
        iteration, first, _ = self.name
        for row in rows:
            try:
                self.make_row(row)
            except VerydeepError as error:
                self.errors[row] = error
            except Exception as cause:  # noqa: BLE001  the consumer raises it, as DataError
                self.errors[row] = _as_data_error(
                    cause, f"image {first + row} of iteration {iteration}"
                )

    def make_row(self, row: int) -> None:
        """Make one image.

        Raises:
            DataError, ShapeError, ProtoError: the image cannot be made.
        """
        record, words = self._records[row], self._words[row]
        self.batch = self._images.make(record, words, self.batch, self.count, row)

    def settle(self, rows: range) -> None:
        """Note that rows have been made; without a first image none of the others can be made."""
        if self.batch is None:
            self.started, self.left = self.count, 0
        else:
            self.left -= len(rows)

    def result(self) -> Batch:
        """The finished batch.

        Raises:
            VerydeepError: the error of the first image that could not be made.
        """
        if self.errors or self.batch is None:
            raise self.errors[min(self.errors)]
        return self.batch


class _Pipeline:
    """The queue of requests and the threads that fill it; it has no reference to its reader.

    The threads exist in the process that created the pipeline, not in its forked children.
    """

    def __init__(self, images: _Images, workers: int) -> None:
        self.process = os.getpid()
        self._images = images
        self._prefetch = min(max(1, images.plan.prefetch), MOST_PREFETCH)
        self._changed = threading.Condition()
        self._queue: deque[BatchRequest] = deque()
        self._spare: list[Batch] = []
        self._failure: DataError | None = None
        self.stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"data-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def _new_request(self, iteration: int, first: int, count: int) -> BatchRequest:
        batch = None if self._images.plan.sizes_vary(count) else self._batch(count)
        request = BatchRequest(self._images, (iteration, first, count), batch)
        self._queue.append(request)
        return request

    def _batch(self, count: int) -> Batch:
        while self._spare:
            batch = self._spare.pop()
            if len(batch.labels) == count:
                return batch
        return Batch.empty(count, self._images.shape, self._images.scale)

    def _request_next(self) -> None:
        """Add the request that follows the last: the rest of its window, or the next window."""
        iteration, first, count = self._queue[-1].name
        low, high = self._images.plan.bounds
        first += count
        if first >= high:
            iteration, first = iteration + 1, low
        self._new_request(iteration, first, min(count, high - first))

    def _next_rows(self) -> tuple[BatchRequest, range] | None:
        """Rows for a worker; None if there is nothing to do."""
        while self._queue:
            for request in self._queue:
                if request.open:
                    share = request.count // (4 * len(self._threads))
                    return request, request.take(max(1, min(_LARGEST_RUN, share)))
            if len(self._queue) > self._prefetch:
                return None
            self._request_next()
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
                    self._failure = _as_data_error(cause, "data: making the next batch ahead")
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
        """Wait for a request, whether made ahead or not, and take it out of the queue.

        Raises:
            DataError: the request is impossible, or the reader has been closed.
        """
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
                raise _closed()
            if len(self._queue) == 1:
                self._request_next()
            self._queue.popleft()
            self._changed.notify_all()
            return request

    def recycle(self, batch: Batch) -> None:
        """Keep the arrays of a batch for another."""
        with self._changed:
            if len(self._spare) <= self._prefetch and batch.data.shape[1:] == self._images.shape:
                self._spare.append(batch)

    def stop(self) -> None:
        """End the threads after their current images. Does nothing in a forked child."""
        if os.getpid() != self.process:
            return
        with self._changed:
            self.stopped = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()


def _closed() -> DataError:
    return DataError("data: the reader was closed; open a new one")


class BatchReader:
    """Reads the batches of a plan ahead of the consumer.

    Any part of any iteration may be read at any time, by one thread; consecutive parts of the
    plan's window are made ahead. With workers=0 the caller's thread makes everything. In a forked
    child the reader starts its own workers.

    Without a crop, images that are read together have the size of the first of them, as in Caffe,
    and other batches may have other sizes; `shape` is that of the first usable record.

    `wait_seconds` is the time that `read` has waited; `count` is the number of images read.

    Raises:
        DataError: no record can be used, or the first cannot and `on_error` is fatal.
        ProtoError: images differ in shape because they are rescaled but not cropped.
    """

    def __init__(self, plan: ReadPlan) -> None:
        self.plan = plan
        self._images = _Images(plan)
        self.shape = self._images.shape
        self.wait_seconds = 0.0
        self.count = 0
        self._closed = False
        self._workers = default_workers() if plan.workers is None else plan.workers
        self._pipeline: _Pipeline | None = None
        self._finalizer: Callable[[], object] | None = None
        if self._workers > 0:
            self._pipeline = self._start_workers()

    def _start_workers(self) -> _Pipeline:
        pipeline = _Pipeline(self._images, self._workers)
        # Called when the reader is dropped, and before the interpreter ends: a thread inside OpenCV
        # at that time may crash.
        self._finalizer = weakref.finalize(self, pipeline.stop)
        return pipeline

    def sizes_vary(self, count: int) -> bool:
        """Whether batches of `count` images differ in shape; see ReadPlan.sizes_vary."""
        return self.plan.sizes_vary(count)

    def read(self, iteration: int, first: int, count: int) -> Batch:
        """Read images first .. first+count-1 of an iteration; the caller owns the batch.

        Raises:
            DataError, ShapeError: a record cannot be used; the message has its key.
        """
        started = time.perf_counter()
        if self._closed:
            raise _closed()
        if self._pipeline is None:
            request = self._make(iteration, first, count)
        else:
            if self._pipeline.process != os.getpid():
                self._pipeline = self._start_workers()
            request = self._pipeline.fetch(iteration, first, count)
        self.wait_seconds += time.perf_counter() - started
        batch = request.result()
        self.count += count
        return batch

    def _make(self, iteration: int, first: int, count: int) -> BatchRequest:
        """Make images in the caller's thread."""
        batch = None
        if not self.plan.sizes_vary(count):
            batch = Batch.empty(count, self.shape, self._images.scale)
        request = BatchRequest(self._images, (iteration, first, count), batch)
        while request.open:
            rows = request.take(count)
            request.make(rows)
            request.settle(rows)
        return request

    def recycle(self, batch: Batch) -> None:
        """Take back a batch that the caller needs no longer; its arrays are used again."""
        if self._pipeline is not None:
            self._pipeline.recycle(batch)

    def close(self) -> None:
        """End the workers. May be called more than once."""
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
