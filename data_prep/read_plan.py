"""The plan of a reader: which records make up a batch, and what is done to them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from data_prep.datum import Writer, write_crop
from data_prep.philox import Words
from data_prep.sampler import Sampler, make_sampler
from data_prep.transform import Transform
from prototxt_gen.errors import DataError, ProtoError

FATAL, SKIP = "fatal", "skip"
"""What follows from an unusable record: an error, or the next usable record in its place."""
DEFAULT_PREFETCH = 4
"""Batches that are kept ready, as DataParameter.prefetch."""
MOST_PREFETCH = 64
"""The limit of the batches that are kept ready: all of them take memory."""
_POSITIONS = 1 << 63


class RecordSource(Protocol):
    """Serialised Datums by position, for any number of threads; `lmdb_io.Reader` is one."""

    def __len__(self) -> int:
        """The number of records."""

    def get(self, index: int) -> bytes:
        """A serialised Datum."""

    def key(self, index: int) -> str:
        """The name of a record, for messages."""


def default_workers() -> int:
    """One worker for each core that this process may use, at most 8."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(8, len(os.sched_getaffinity(0))))
    return max(1, min(8, os.cpu_count() or 1))


@dataclass(frozen=True, eq=False)
class ReadPlan:
    """What a BatchReader reads. An image is a function of the plan, the iteration and its index.

    `batch_size` is the number of records of a whole iteration: all shards, all of iter_size.

    Raises:
        ProtoError: a number is out of range.
        DataError: the source has no records.
    """

    source: RecordSource
    transform: Transform
    batch_size: int
    shuffle: bool = False
    seed: int = 0
    """Of the order of the records and of the transform."""
    stream: int = 0
    """The stream of the transform's random words; see `philox.stream_of`."""
    window: tuple[int, int] | None = None
    """The part low .. high-1 of each iteration that is read ahead; None for the whole."""
    workers: int | None = None
    """Threads that make images; 0 for the caller's thread, None for `default_workers`."""
    prefetch: int = DEFAULT_PREFETCH
    on_error: str = FATAL
    as_bytes: bool = False
    """Make batches of bytes, with offsets, if the records and the transform permit it."""
    writer: Writer = write_crop
    """Writes the images of batches of floats."""
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ProtoError(f"data_param: batch_size {self.batch_size}; expected at least 1")
        if self.on_error not in (FATAL, SKIP):
            raise ProtoError(f"on_error: {self.on_error!r}; expected {FATAL!r} or {SKIP!r}")
        low, high = self.bounds
        if not 0 <= low < high <= self.batch_size:
            raise ProtoError(
                f"data: a window of {low} to {high}; expected a part of 0 to {self.batch_size}"
            )
        sampler = make_sampler(len(self.source), self.shuffle, self.seed)
        object.__setattr__(self, "sampler", sampler)

    @property
    def bounds(self) -> tuple[int, int]:
        """The window as low and high."""
        return self.window or (0, self.batch_size)

    def sizes_vary(self, count: int) -> bool:
        """Whether `count` images that are read together have the size of the first of them.

        Without a crop they do, as in Caffe. If records are skipped, several images keep the size of
        the first record of the database, so that one odd record does not displace those after it.
        """
        return self.transform.size(None) is None and (count == 1 or self.on_error == FATAL)

    def samples(self, iteration: int, first: int, count: int) -> tuple[list[int], Words]:
        """The records and the random words of images first .. first+count-1 of an iteration.

        Words depend on the number of the sample in the whole run, so iter_size passes of a batch
        have the words of one large batch.

        Shapes: words (count, transform.word_count).

        Raises:
            DataError: the images are not a part of a batch, or no run reaches the iteration.
        """
        if count < 1 or not 0 <= first <= self.batch_size - count:
            raise DataError(
                f"data: images {first} to {first + count - 1} of a batch of "
                f"{self.batch_size}; expected a part of the batch"
            )
        if not 0 <= iteration < _POSITIONS // self.batch_size:
            raise DataError(
                f"data: iteration {iteration} of {self.batch_size} images; expected a position "
                "below 2**63; the state from which the run continues is damaged"
            )
        start = iteration * self.batch_size + first
        numbers = np.arange(start, start + count, dtype=np.int64)
        words = self.transform.draw(self.seed, self.stream, numbers >> 32, numbers & 0xFFFFFFFF)
        return [self.sampler.record_at(number) for number in range(start, start + count)], words
