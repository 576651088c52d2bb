"""HDF5Data: batches from HDF5 files. Caffe: hdf5_data_layer.cpp, util/hdf5.cpp."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.sampler import permutation
from data_prep.text_lines import file_name, read_lines
from prototxt_gen.errors import DataError, ProtoError, ShapeError
from prototxt_gen.regular_file import RegularFile, check_below
from runtime.backend.base import HostArray
from runtime.core.hdf5_file import check_numbers, find, names_in, open_hdf5_file, reading
from runtime.core.layer import Blobs, Layer, at_least, exactly
from runtime.core.layer_registry import register

Row = tuple[int, ...]
"""The shape of one row."""

Sets = dict[str, Any]
"""The data sets of a file by the names of the tops: h5py's, or arrays if the file is small."""

_SMALL = 1 << 20
"""Numbers in the data sets of a small file."""
_MOST_KEPT = 16
"""Small files in memory at a time."""
_UNWRITTEN = 1 << 20
"""Bytes of a data set that may be missing in the file: elements that were never written."""


@register("HDF5Data")
class HDF5DataLayer(Layer):
    """Each top is read from the data set of its name, in the files that `source` lists.

    Rows are read when they are needed, so a file may be larger than memory; small files are read
    once and kept. Integers and floats of any width are converted to floats. With `shuffle`, files
    and the rows of a file have a new order in every cycle; there is no transform_param. With
    `confine_lists` in the context, the files must be below the working folder.

    Shapes: top (batch, ...) for a data set (M, ...), whose rows have one shape in all files.
    """

    batch_param = "hdf5_data_param"
    reads_images = divides_batch = True

    num_bottom, num_top = exactly(0), at_least(1)

    file: Any = None
    path: Path | None = None

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the list and open the first file.

        Raises:
            ProtoError: there is a transform_param, or batch_size is below 1.
            DataError, ShapeError: the list or the first file cannot be used.
        """
        if self.param.HasField("transform_param"):
            raise ProtoError(
                f"{self.label}: takes no transform_param; remove it, and transform the data "
                "before writing the files"
            )
        param = self.param.hdf5_data_param
        self.batch = int(param.batch_size)
        if self.batch < 1:
            raise ProtoError(f"{self.label}: batch_size is {self.batch}; expected at least 1")
        with self.naming():
            self.files = self._list(self.context.path(param.source))
        self.shapes: dict[str, Row] = {}
        self.lengths: dict[int, int] = {}
        self.kept: dict[Path, Sets] = {}
        self.cycle: tuple[int, int] | None = None
        self._rewind()
        with self.naming():
            for name, blob in zip(self.param.top, top):
                blob.reshape((self.batch, *self.shapes[name]))

    def _list(self, source: Path) -> list[Path]:
        """The files of the list; as in Caffe, a line may contain several.

        A line that is the path of one file is not split at its spaces.
        """
        paths = []
        for _, line in read_lines(source):
            single = self.context.path(file_name(line))
            names = [line] if os.path.isfile(single) else line.split()  # noqa: PTH113
            paths += [self.context.path(file_name(name)) for name in names]
        if not paths:
            raise DataError(f"source {source} lists no files; expected the paths of HDF5 files")
        for path in paths:
            RegularFile(path, advice=f"correct the list {source}").check()
        if self.context.confine_lists:
            check_below(paths, self.context.root)
        return paths

    def _rewind(self) -> None:
        self.close()
        self.round, self.position = -1, 0
        self.process = os.getpid()
        self._open_next()

    def _open_next(self) -> None:
        """Open the next file, or the first one after the last."""
        shuffle, seed, visit = self.param.hdf5_data_param.shuffle, self.context.seed, self.round + 1
        cycle, index = divmod(visit, len(self.files))
        with self.naming():
            if shuffle:
                if (seed, cycle) != self.cycle:
                    self.cycle = (seed, cycle)
                    self.file_order = permutation(len(self.files), seed, cycle)
                index = int(self.file_order[index])
            if self.path != self.files[index]:
                self.close()
                self._open(self.files[index])
            self.order = permutation(self.rows, seed + 1, visit) if shuffle else None
        self.lengths[index] = self.rows
        self.round, self.next_row = visit, 0

    def _open(self, path: Path) -> None:
        """Open a file and check that it has a data set for each top."""
        if path in self.kept:
            self.path, self.sets = path, self.kept[path]
            self.rows = len(next(iter(self.sets.values())))
            return
        self.file = open_hdf5_file(path, DataError)
        self.path = path
        self.sets = {name: self._data_set(name) for name in self.param.top}
        lengths = {name: int(values.shape[0]) for name, values in self.sets.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise ShapeError(f"{path}: rows {lengths}; expected equal numbers of at least 1")
        self.rows = next(iter(lengths.values()))
        if sum(values.size for values in self.sets.values()) <= _SMALL:
            self._keep(path)

    def _keep(self, path: Path) -> None:
        """Read a small file completely and close it."""
        sets: Sets = {}
        for name, values in self.sets.items():
            sets[name] = np.empty(values.shape, self.backend.dtype)
            with reading(f"{path}: data set '{name}'", DataError):
                values.read_direct(sets[name])
        if len(self.kept) == _MOST_KEPT:
            self.kept.clear()
        self.kept[path] = self.sets = sets
        self._close_file()

    def _data_set(self, name: str) -> Any:
        label = f"{self.path}: data set '{name}'"
        with reading(label, DataError):
            values = find(self.file, name)
            if values is None:
                raise DataError(
                    f"{self.path}: no data set '{name}'; expected one for each top, got "
                    f"{names_in(self.file)}"
                )
        check_numbers(values, label, DataError, _UNWRITTEN)
        shape = tuple(int(dim) for dim in values.shape)
        if not shape or min(shape[1:], default=1) < 1:
            raise ShapeError(
                f"{label}: shape {shape}; expected a first axis of rows, and no axis of length 0; "
                "write the data set with one row for each sample"
            )
        expected = self.shapes.setdefault(name, shape[1:])
        if _without_ones(shape[1:]) != _without_ones(expected):
            raise ShapeError(
                f"{label}: rows of shape {shape[1:]}; expected {expected}, as in the first file, "
                f"{self.files[0]}; write all files with rows of one shape"
            )
        return values

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Do nothing: the shapes are fixed."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Read the rows of the batch, from the next file if necessary.

        Raises:
            DataError, ShapeError: a file cannot be read.
        """
        self._seek(self.context.pass_number * self.batch)
        out = [blob.data.mutable_host() for blob in top]
        filled = 0
        while filled < self.batch:
            if self.next_row == self.rows:
                self._open_next()
            count = min(self.batch - filled, self.rows - self.next_row)
            for name, array in zip(self.param.top, out):
                self._read(name, array[filled : filled + count])
            self.next_row += count
            filled += count
        self.position += self.batch

    def _seek(self, position: int) -> None:
        """Go to a position, counted in rows from the first row of the run, as after a resume."""
        if position < self.position or self.process != os.getpid():
            # A child process would share the position in the open file with its parent.
            self._rewind()
        while self.position < position:
            if self.next_row == self.rows:
                self._open_next()
            self._skip_cycles(position)
            count = min(position - self.position, self.rows - self.next_row)
            self.next_row += count
            self.position += count

    def _skip_cycles(self, position: int) -> None:
        """Skip complete cycles over all files, once the number of rows of each file is known."""
        if self.next_row or self.round % len(self.files) or len(self.lengths) < len(self.files):
            return
        rows = sum(self.lengths.values())
        cycles = (position - self.position) // rows
        if cycles:
            self.position += cycles * rows
            self.round += cycles * len(self.files) - 1
            self._open_next()

    def _read(self, name: str, out: HostArray) -> None:
        """Read the next rows; HDF5 converts them to the dtype of the array, as in Caffe."""
        values = self.sets[name]
        rows = slice(self.next_row, self.next_row + len(out))
        shaped = out.reshape(len(out), *values.shape[1:])
        if isinstance(values, np.ndarray):
            shaped[...] = values[rows if self.order is None else self.order[rows]]
            return
        with self.naming(), reading(f"{self.path}: data set '{name}'", DataError):
            if self.order is None:
                values.read_direct(shaped, rows)
                return
            places = self.order[rows]
            ascending = np.argsort(places)  # h5py reads rows in ascending order only
            sorted_rows = np.empty_like(shaped)
            values.read_direct(sorted_rows, places[ascending])
            shaped[ascending] = sorted_rows

    def close(self) -> None:
        """Close the file."""
        self.path = None
        self._close_file()

    def _close_file(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def _without_ones(shape: Row) -> Row:
    """A shape without its axes of length 1."""
    return tuple(dim for dim in shape if dim != 1)
