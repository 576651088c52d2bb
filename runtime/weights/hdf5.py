"""Weights in .caffemodel.h5 files. Caffe: Net::ToHDF5, Net::CopyTrainedLayersFromHDF5, hdf5.cpp.

Layout: a dataset /data/<layer>/<i> for each weight blob, and an empty group for a layer without
weights; /diff/<layer>/<i> for gradients, if they are saved.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prototxt_gen.errors import SnapshotError
from prototxt_gen.geometry_limits import MAX_COUNT
from runtime.core.hdf5_file import (
    atomic_hdf5,
    find,
    names_in,
    numbers_fault,
    open_hdf5,
    reading,
    walk,
)
from runtime.weights.file_blob import Array, FileBlob, FileLayer
from runtime.weights.layer_names import is_plain

SUFFIX = ".h5"


@dataclass(frozen=True)
class DatasetBlob(FileBlob):
    """A weight blob that is a dataset of an open file."""

    dataset: Any

    @classmethod
    def of(cls, label: str, dataset: Any) -> DatasetBlob:
        """The blob of a dataset, checked first: HDF5 may open other files to get a shape.

        Raises:
            SnapshotError: the file does not store a number for each element of the shape.
        """
        with reading(label):
            fault = numbers_fault(dataset)
            shape = () if fault else tuple(int(dim) for dim in dataset.shape)
        if fault or math.prod(shape) > MAX_COUNT:
            raise SnapshotError(
                f"{label}: no weights; expected at most {MAX_COUNT} numbers, all of them stored, "
                f"got {fault or f'shape {shape}'}; copy or download the file again"
            )
        return cls(label, shape, dataset)

    def array(self) -> Array:
        with reading(self.label):
            return np.asarray(self.dataset[()])

    def copy_to(self, out: Array) -> None:
        """Copy the numbers without an intermediate array if `out` has their shape."""
        with reading(self.label):
            if self.count and out.shape == self.shape and out.flags.c_contiguous:
                self.dataset.read_direct(out)
            else:
                out[...] = np.asarray(self.dataset[()]).reshape(out.shape)


@contextlib.contextmanager
def open_hdf5_weights(path: str | os.PathLike[str]) -> Iterator[list[FileLayer]]:
    """The layers of a file in HDF5's (alphabetical) order; their blobs are readable in the block.

    Raises:
        SnapshotError: the file is missing, damaged, or has no weights.
    """
    with open_hdf5(path) as file:
        with reading(str(path)):
            layers = _layers(file, str(path))
        yield layers


def _layers(file: Any, path: str) -> list[FileLayer]:
    import h5py

    root = find(file, "data")
    if not isinstance(root, h5py.Group):
        raise SnapshotError(
            f"{path}: no weights; expected a group /data, got {names_in(file)}; give a "
            ".caffemodel.h5"
        )
    layers: dict[str, dict[int, DatasetBlob]] = {}
    for name, item in walk(root):
        layer, _, index = name.rpartition("/")
        if isinstance(item, h5py.Group):
            layers.setdefault(name, {})
        elif layer and index.isdecimal() and isinstance(item, h5py.Dataset):
            label = f"{path}: layer '{layer}', blob {index}"
            layers.setdefault(layer, {})[int(index)] = DatasetBlob.of(label, item)
    return [FileLayer(name, blobs, leaves_out_shared=True) for name, blobs in layers.items()]


def check_layer_names(layers: Iterable[tuple[str, Collection[int]]], label: str) -> None:
    """Check that the layers have names that are distinct paths below /data.

    `layers` has the name of each layer and the indices of its datasets.

    Raises:
        SnapshotError: a name is no path, or two names are one path.
    """
    groups: dict[str, str] = {}
    datasets: dict[str, str] = {}
    for name, indices in layers:
        parts = name.split("/")
        groups.update(("/".join(parts[: i + 1]), name) for i in range(len(parts)))
        if {"", ".", ".."} & set(parts) or not is_plain(name):
            raise SnapshotError(
                f"{label}: layer {name!r} has no place in HDF5; expected a name in UTF-8 whose "
                "parts between slashes are not empty, '.' or '..'; rename the layer, or save as "
                ".caffemodel"
            )
        for index in indices:
            path = f"{name}/{index}"
            if path in datasets:
                raise SnapshotError(
                    f"{label}: two layers of one name would be one in HDF5; expected distinct "
                    f"names, got {name!r} twice; rename a layer, or save as .caffemodel"
                )
            datasets[path] = name
    for path in sorted(datasets.keys() & groups.keys()):
        raise SnapshotError(
            f"{label}: layers {datasets[path]!r} and {groups[path]!r} meet in HDF5; expected "
            f"distinct paths, got {path!r} for a weight of the first and for the second; rename a "
            "layer, or save as .caffemodel"
        )


def write_hdf5_weights(
    path: str | os.PathLike[str],
    layers: Iterable[tuple[str, Sequence[Array | None], Sequence[Array] | None]],
) -> None:
    """Write (name, data, diff) of each layer.

    A blob is None if another layer owns the weights, and `diff` if no gradients are saved.

    Shapes: those of the weight blobs.

    Raises:
        SnapshotError: the disk is full or the folder read-only.
    """
    with atomic_hdf5(path) as file:
        root = file.create_group("data")
        for name, blobs, diffs in layers:
            group = root.require_group(name)
            for index, blob in enumerate(blobs):
                if blob is not None:
                    group.create_dataset(str(index), data=blob)
            if diffs is not None:
                gradients = file.require_group("diff").require_group(name)
                for index, diff in enumerate(diffs):
                    gradients.create_dataset(str(index), data=diff)
