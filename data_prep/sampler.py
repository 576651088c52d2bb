"""The order of records: the record at each position of the endless training sequence.

Position p is iteration * batch + index in the batch, so resumed runs and replicas compute their
records directly.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_prep import philox
from prototxt_gen.errors import DataError

SHUFFLE_STREAM = philox.stream_of("sampler.shuffle")
_EPOCHS_KEPT = 3
_EPOCHS = 1 << 32


class Sampler(Protocol):
    """Maps positions to records; may be called from any thread."""

    def record_at(self, position: int) -> int:
        """The record at a position of the sequence, from 0."""


def _checked(count: int) -> int:
    if count < 1:
        raise DataError(f"sampler: {count} records; expected at least one; check the database")
    return count


class SequentialSampler:
    """Records in the order of the database, in an endless cycle. Caffe: data_layer.cpp."""

    def __init__(self, count: int) -> None:
        self._count = _checked(count)

    def record_at(self, position: int) -> int:
        """The record at a position of the sequence, from 0."""
        return position % self._count


class ShuffledSampler:
    """A new permutation of all records in every epoch, a function of (seed, epoch)."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = _checked(count)
        self._seed = seed
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, npt.NDArray[np.int64]] = OrderedDict()

    def record_at(self, position: int) -> int:
        """The record at a position of the sequence, from 0."""
        epoch, place = divmod(position, self._count)
        return int(self._permutation(epoch)[place])

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        with self._lock:
            order = self._kept.get(epoch)
            if order is None:
                order = self._kept[epoch] = permutation(self._count, self._seed, epoch)
                while len(self._kept) > _EPOCHS_KEPT:
                    self._kept.popitem(last=False)
            return order


def permutation(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Order 0 .. count-1 by 64 random bits each; equal bits keep the order of the numbers.

    NumPy's permutation is not used, because its stream may change between versions.

    Shapes: result (count,).

    Raises:
        DataError: no run reaches the epoch.
    """
    if not 0 <= epoch < _EPOCHS:
        raise DataError(
            f"sampler: epoch {epoch} of {count} records; expected fewer than {_EPOCHS}; the state "
            "from which the run continues is damaged"
        )
    drawn = philox.words(seed, SHUFFLE_STREAM, epoch, 0, 2 * count).astype(np.uint64)
    return np.argsort(drawn[0::2] << np.uint64(32) | drawn[1::2], kind="stable")


def make_sampler(count: int, shuffle: bool, seed: int) -> Sampler:
    """The sampler for `shuffle` on or off."""
    return ShuffledSampler(count, seed) if shuffle else SequentialSampler(count)
