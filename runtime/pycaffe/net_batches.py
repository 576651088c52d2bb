"""More images than a batch holds: cut into batches, the last one padded. Caffe: pycaffe.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np

from runtime.backend.base import HostArray
from runtime.pycaffe.errors import ArrayError, CallError

Arrays = dict[str, HostArray]


class BatchNet(Protocol):
    """A net that takes one batch at a time."""

    inputs: list[str]
    outputs: list[str]

    def forward(self, blobs: Sequence[str] | None, **kwargs: Any) -> Arrays:
        """Run one batch forward; returns the outputs and `blobs`."""

    def backward(self, diffs: Sequence[str] | None, **kwargs: Any) -> Arrays:
        """Run one batch backward; returns the diffs of the inputs and of `diffs`."""


def forward_all(
    net: BatchNet, batch: int, blobs: Sequence[str], inputs: Mapping[str, HostArray]
) -> Arrays:
    """The outputs and `blobs` of all images; rows that only pad a batch are left out.

    `batch` is the number of images that the net takes at a time.
    """
    total = _count("forward_all", inputs)
    found = _Collector([*net.outputs, *blobs])
    for arrays in _batches(batch, inputs):
        found.add(net.forward(blobs=blobs, **arrays))
    return found.arrays(total)


def forward_backward_all(
    net: BatchNet,
    batch: int,
    blobs: Sequence[str],
    diffs: Sequence[str],
    arrays: Mapping[str, HostArray],
) -> tuple[Arrays, Arrays]:
    """As forward_all, with the inputs' diffs; diffs of the outputs may be among the arrays."""
    total = _count("forward_backward_all", arrays)
    strange = sorted(set(arrays) - {*net.inputs, *net.outputs})
    if strange:
        raise CallError(
            f"forward_backward_all: expected inputs and outputs of the net "
            f"({', '.join([*net.inputs, *net.outputs])}), got {', '.join(strange)}"
        )
    outs, grads = _Collector([*net.outputs, *blobs]), _Collector([*net.inputs, *diffs])
    forward = _batches(batch, {name: arrays[name] for name in net.inputs if name in arrays})
    backward = _batches(batch, {name: arrays[name] for name in net.outputs if name in arrays})
    for inputs, tops in zip_longest(forward, backward, fillvalue=None):
        outs.add(net.forward(blobs=blobs, **(inputs or {})))
        grads.add(net.backward(diffs=diffs, **(tops or {})))
    return outs.arrays(total), grads.arrays(total)


class _Collector:
    """Copies of named arrays, batch after batch."""

    def __init__(self, names: Sequence[str]) -> None:
        self._parts: dict[str, list[HostArray]] = {name: [] for name in names}

    def add(self, found: Mapping[str, HostArray]) -> None:
        """Keep a copy; a number such as a loss counts as one row."""
        for name, parts in self._parts.items():
            parts.append(np.atleast_1d(found[name]).copy())

    def arrays(self, total: int) -> Arrays:
        """All batches in one array; never more than `total` rows."""
        return {
            name: np.concatenate(parts)[:total] if parts else np.empty(0, np.float32)
            for name, parts in self._parts.items()
        }


def _count(where: str, arrays: Mapping[str, HostArray]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ArrayError(
            f"{where}: expected at least one array, and as many images in each; got "
            f"{lengths or 'none'}"
        )
    return next(iter(lengths.values()))


def _batches(size: int, arrays: Mapping[str, HostArray]) -> Iterator[dict[str, Any]]:
    if not arrays:
        return
    for first in range(0, len(next(iter(arrays.values()))), size):
        yield {name: _padded(array[first : first + size], size) for name, array in arrays.items()}


def _padded(rows: HostArray, size: int) -> HostArray:
    if len(rows) == size:
        return rows
    padding = np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, padding])
