"""What Data and ImageData have in common: batches of a reader. Caffe: base_data_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from data_prep.box_reader import BoxReader
from data_prep.prefetch import BatchReader
from prototxt_gen.errors import DataError, ProtoError
from runtime.core.layer import Blobs, Layer
from runtime.layers.byte_input import put_batch


class BatchLayer(Layer):
    """Reads the records of pass p at positions p*batch .. p*batch+batch-1, round and round.

    Without a crop the tops take the size of the first image of each pass, as in Caffe.

    Shapes: tops (batch,C,H,W) and labels (batch,).
    """

    reader: BatchReader | BoxReader | None = None
    batch = 0
    _fetched: tuple[int, npt.NDArray[Any], npt.NDArray[Any]] | None = None

    def take_batch_size(self, batch_size: int) -> None:
        """Keep the batch size of the prototxt.

        Raises:
            ProtoError: it is below 1.
        """
        if batch_size < 1:
            raise ProtoError(f"{self.label}: batch_size is {batch_size}; expected at least 1")
        self.batch = batch_size

    def shape_tops(self, top: Blobs, image: tuple[int, ...]) -> None:
        """Shape the tops for a batch of images (C,H,W)."""
        top[0].reshape((self.batch, *image))
        if len(top) > 1:
            top[1].reshape((self.batch,))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Keep the shapes that `layer_setup` or `fetch` gave."""

    def fetch(self, top: Blobs) -> None:
        """Read the batch of the coming pass where its size is not known before."""
        reader = self.reader
        if isinstance(reader, BatchReader) and reader.loader.sizes_vary(self.batch):
            self._fetched = (self.context.pass_number, *self._read(reader))
            self.shape_tops(top, self._fetched[1].shape[1:])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the batch of this pass."""
        if self.reader is None:
            raise DataError(f"{self.label}: the net was made for its shapes only; it has no data")
        if self._fetched is None or self._fetched[0] != self.context.pass_number:
            self._fetched = (self.context.pass_number, *self._read(self.reader))
            self.shape_tops(top, self._fetched[1].shape[1:])
        _, images, labels = self._fetched
        self._fetched = None
        put_batch(self.reader, self._position(), images, top[0].data)
        if len(top) > 1:
            top[1].data.mutable_host()[...] = labels

    def _position(self) -> tuple[int, int]:
        """The iteration of the coming pass, and its first image there."""
        iteration, place = divmod(self.context.pass_number, self.context.window.passes)
        return iteration, place * self.batch

    def _read(self, reader: BatchReader | BoxReader) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        with self.naming():
            return reader.read(*self._position(), self.batch)

    @property
    def wait_seconds(self) -> float:
        """Time spent waiting for data so far."""
        return 0.0 if self.reader is None else self.reader.wait_seconds

    def close(self) -> None:
        """Stop reading."""
        if self.reader is not None:
            self.reader.close()
