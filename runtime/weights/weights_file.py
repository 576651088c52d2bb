"""Open a file of weights: .caffemodel of every form, .h5 or .npz, which its content decides."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from prototxt_gen.destination import current_folder
from prototxt_gen.errors import SnapshotError
from prototxt_gen.regular_file import RegularFile
from runtime.core.hdf5_file import SIGNATURE as HDF5_SIGNATURE
from runtime.weights.caffemodel import read_caffemodel
from runtime.weights.file_blob import FileLayer
from runtime.weights.hdf5 import open_hdf5_weights
from runtime.weights.npz import SIGNATURE as NPZ_SIGNATURE
from runtime.weights.npz import read_npz_weights

log = logging.getLogger("verydeep.net")


@contextlib.contextmanager
def open_weights(path: str | os.PathLike[str]) -> Iterator[list[FileLayer]]:
    """The layers of a file of weights; their blobs are readable in the block.

    Raises:
        SnapshotError: the file is missing, damaged, or no file of weights.
    """
    head = _head(path)
    if head.startswith(HDF5_SIGNATURE):
        with open_hdf5_weights(path) as layers:
            yield layers
    elif head.startswith(NPZ_SIGNATURE):
        yield [FileLayer(name, blobs) for name, blobs in read_npz_weights(path).items()]
    else:
        messages = read_caffemodel(path)
        if any(layer.nvidia for layer in messages):
            log.info("%s was written by NVIDIA's Caffe", path)
        yield [
            FileLayer(layer.name, dict(enumerate(layer.blobs)), transposed=layer.transposed)
            for layer in messages
        ]


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether the content of a file is HDF5.

    Raises:
        SnapshotError: the file is missing or cannot be read.
    """
    return _head(path).startswith(HDF5_SIGNATURE)


def _head(path: str | os.PathLike[str]) -> bytes:
    advice = f"check the path (the current folder is {current_folder()})"
    file = RegularFile(path, SnapshotError, advice=advice)
    with file.open() as stream:
        try:
            return stream.read(len(HDF5_SIGNATURE))
        except OSError as cause:
            raise file.unreadable(cause) from cause
