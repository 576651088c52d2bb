"""HDF5Data: batches from HDF5 files. Caffe: hdf5_data_layer.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_prep.sampler import permutation
from prototxt_gen.errors import DataError, ProtoError, ShapeError
from runtime.backend.base import HostArray
from runtime.layer import Blobs, Layer, at_least, exactly
from runtime.layer_factory import register


@register("HDF5Data")
class HDF5DataLayer(Layer):
    """Each top is the data set of its name; `source` lists the files, read one after another.

    Rows are read as they are needed, so a file may be larger than memory. With `shuffle`, files and
    the rows of a file come in a new order every time round; transform_param is not for this layer.

    Shapes: top (batch, ...) for a data set (M, ...).
    """

    num_bottom, num_top = exactly(0), at_least(1)

    file: Any = None

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the list and look into the first file."""
        if self.param.HasField("transform_param"):
            raise ProtoError(f"{self.label}: takes no transform_param; transform the data before")
        param = self.param.hdf5_data_param
        self.batch = int(param.batch_size)
        if self.batch < 1:
            raise ProtoError(f"{self.label}: batch_size is {self.batch}; expected at least 1")
        self.files = self._list(self.context.path(param.source))
        self._rewind()
        for name, blob in zip(self.param.top, top):
            blob.reshape((self.batch, *self.file[name].shape[1:]))

    def _list(self, source: Path) -> list[Path]:
        try:
            lines = source.read_text().split()
        except OSError as cause:
            raise DataError(
                f"{self.label}: source {source}: {cause.strerror}; expected a text file that "
                "lists HDF5 files"
            ) from cause
        if not lines:
            raise DataError(f"{self.label}: source {source} lists no files")
        return [self.context.path(line) for line in lines]

    def _rewind(self) -> None:
        self.round, self.position = -1, 0
        self._open_next()

    def _open_next(self) -> None:
        """Open the file after the current one; after the last, begin another round."""
        import h5py

        self.close()
        self.round += 1
        turn, place = divmod(self.round, len(self.files))
        if self.param.hdf5_data_param.shuffle:
            place = int(permutation(len(self.files), self.context.seed, turn)[place])
        path = self.files[place]
        try:
            self.file = h5py.File(path, "r")
        except OSError as cause:
            raise DataError(f"{self.label}: {path}: cannot be read as HDF5: {cause}") from cause
        lengths = {}
        for name in self.param.top:
            if name not in self.file:
                raise DataError(
                    f"{self.label}: {path}: no data set '{name}'; expected one for each top, "
                    f"got {sorted(self.file)}"
                )
            lengths[name] = len(self.file[name])
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise ShapeError(
                f"{self.label}: {path}: rows {lengths}; expected equally many, and some"
            )
        self.rows = next(iter(lengths.values()))
        self.order = None
        if self.param.hdf5_data_param.shuffle:
            self.order = permutation(self.rows, self.context.seed + 1, self.round)
        self.next_row = 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """The shapes are fixed."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy rows until the batch is full; a file's end is no batch's end."""
        self._seek(self.context.pass_number * self.batch)
        out = [blob.data.mutable_host() for blob in top]
        filled = 0
        while filled < self.batch:
            if self.next_row == self.rows:
                self._open_next()
            count = min(self.batch - filled, self.rows - self.next_row)
            for name, array in zip(self.param.top, out):
                array[filled : filled + count] = self._read(name, count)
            self.next_row += count
            filled += count
        self.position += self.batch

    def _seek(self, position: int) -> None:
        """Stand at the row that comes `position` rows after the very first, as after a resume."""
        if position < self.position:
            self._rewind()
        while self.position < position:
            if self.next_row == self.rows:
                self._open_next()
            count = min(position - self.position, self.rows - self.next_row)
            self.next_row += count
            self.position += count

    def _read(self, name: str, count: int) -> HostArray:
        rows = slice(self.next_row, self.next_row + count)
        if self.order is None:
            return np.asarray(self.file[name][rows])
        wanted = self.order[rows]
        by_place = np.argsort(wanted)  # h5py reads rows in growing order only
        values = np.asarray(self.file[name][wanted[by_place]])
        return values[np.argsort(by_place)]

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None
