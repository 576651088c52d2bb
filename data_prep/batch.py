"""One image of one batch: which record it is, and how that record becomes a slice of the blob."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_prep import datum as datums
from data_prep.datum import Image
from data_prep.philox import Words
from data_prep.sampler import Sampler
from data_prep.transform import Floats, TransformSpec
from prototxt_gen.errors import DataError, ProtoError, ShapeError

FATAL, SKIP = "fatal", "skip"
"""What to do about a record that cannot be used: end, or take the next good one of the database."""

_MOST_SKIPPED = 1000
_LOG = logging.getLogger("verydeep.data")


class RecordSource(Protocol):
    """Serialised Datums by position; safe to ask from any thread. `lmdb_io.Reader` is one."""

    def __len__(self) -> int:
        """The number of records."""

    def get(self, index: int) -> bytes:
        """A serialised Datum."""

    def key(self, index: int) -> str:
        """The name of a record, for messages."""


@dataclass(frozen=True)
class ImageLoader:
    """Makes image `index` of iteration `iteration`, whoever asks.

    `batch_size` counts the records of a whole iteration: all shards, all of iter_size. With
    `num_labels` a label outside 0 .. num_labels-1 makes a record unusable.
    """

    source: RecordSource
    spec: TransformSpec
    sampler: Sampler
    batch_size: int
    seed: int
    stream: int
    on_error: str = FATAL
    num_labels: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ProtoError(f"data_param: batch_size {self.batch_size}; expected at least 1")
        if self.on_error not in (FATAL, SKIP):
            raise ProtoError(f"on_error: {self.on_error!r}; expected {FATAL!r} or {SKIP!r}")

    def image_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of every image, from the first usable record."""
        for record in range(min(len(self.source), _MOST_SKIPPED)):
            where = self.source.key(record)
            try:
                message = datums.parse(self.source.get(record), where)
                height, width, channels = datums.image_of(message, where, self.spec.mode).shape
            except DataError as error:
                self._unusable(error)
            else:
                return self.spec.output_shape(height, width, channels)
        raise self._none_usable(0)

    def sizes_vary(self, count: int) -> bool:
        """Whether `count` images that are read together take the size of the first of them.

        Without a crop they do, as in Caffe. Where records are skipped, several images keep the size
        of the database's first, so that one odd record does not displace those after it.
        """
        return not self.spec.crop_size and (count == 1 or self.on_error == FATAL)

    def draw(self, iteration: int, first_index: int, count: int) -> Words:
        """Draw the random words of consecutive images; shape (count, 8).

        Keyed by the sample's number in the whole run, so that iter_size passes of a batch draw
        what one large batch would.
        """
        first = iteration * self.batch_size + first_index
        samples = np.arange(first, first + count, dtype=np.int64)
        return self.spec.draw(self.seed, self.stream, samples >> 32, samples & 0xFFFFFFFF)

    def load(self, iteration: int, index: int, words: Words, out: Floats) -> int:
        """Write an image into its slice (C, H, W) of the batch and return its label.

        Raises:
            DataError, ShapeError: the record cannot be used and `on_error` is fatal.
        """
        return self._load(iteration, index, words, lambda image: out)[1]

    def load_any_size(
        self, iteration: int, index: int, words: Words, channels: int
    ) -> tuple[Floats, int]:
        """Make an image in its own size, and return it with its label.

        Shapes: image (channels, H, W).

        Raises:
            DataError, ShapeError: the record cannot be used and `on_error` is fatal.
        """

        def own(image: Image) -> Floats:
            height, width = image.shape[:2]
            shape = self.spec.output_shape(height, width, channels)
            return np.empty(shape, self.spec.dtype)

        return self._load(iteration, index, words, own)

    def _load(
        self, iteration: int, index: int, words: Words, place: Callable[[Image], Floats]
    ) -> tuple[Floats, int]:
        first = self.sampler.record_at(iteration * self.batch_size + index)
        for step in range(min(len(self.source), _MOST_SKIPPED)):
            record = (first + step) % len(self.source)
            try:
                return self._load_record(record, words, place)
            except (DataError, ShapeError) as error:
                self._unusable(error)
        raise self._none_usable(first)

    def _load_record(
        self, record: int, words: Words, place: Callable[[Image], Floats]
    ) -> tuple[Floats, int]:
        where = f"record {self.source.key(record)}"
        message = datums.parse(self.source.get(record), where)
        label = int(message.label)
        if self.num_labels is not None and not 0 <= label < self.num_labels:
            raise DataError(
                f"{where}: label {label}; expected 0 to {self.num_labels - 1}; "
                "make the database again with labels from 0, or set num_output to the classes"
            )
        needed = self.spec.scale_of(words) if self.spec.reduced_decode else 0
        image = datums.image_of(message, where, self.spec.mode, needed)
        out = place(image)
        self.spec.apply(image, words, out, where)
        return out, label

    def _unusable(self, error: DataError | ShapeError) -> None:
        if self.on_error == FATAL:
            raise error
        _LOG.warning("skipped: %s", error)

    def _none_usable(self, first: int) -> DataError:
        tried = min(len(self.source), _MOST_SKIPPED)
        return DataError(
            f"record {self.source.key(first)}: neither it nor the {tried - 1} records after it can "
            "be used; the log says why for each; make the database again"
        )


def empty_batch(
    count: int, shape: tuple[int, int, int], dtype: npt.DTypeLike = np.float32
) -> tuple[Floats, npt.NDArray[np.float32]]:
    """Arrays for the data (count, C, H, W) and labels (count,) of a batch, not yet filled."""
    return np.empty((count, *shape), dtype), np.empty(count, np.float32)
