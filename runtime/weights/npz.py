"""Weights in .npz files, which NumPy reads.

Layout: an array `<layer>/<i>` for each weight blob, in Caffe's order and shape.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prototxt_gen.errors import SnapshotError
from prototxt_gen.files import atomic_write
from runtime.core.npz_arrays import DAMAGES, member_type, read_member
from runtime.weights.file_blob import Array, FileBlob
from runtime.weights.layer_names import is_plain

SIGNATURE = b"PK\x03\x04"
SUFFIX = ".npz"
_MEMBER = ".npy"
_NUMBERS = "fiu"
_MAX_NAME = 65000
"""Bytes. The length of a member's name, with its index, has 16 bits."""


@dataclass(frozen=True)
class ArrayBlob(FileBlob):
    """A weight blob that is an array of a file, whose header was checked with the file's size."""

    path: str
    member: str

    def array(self) -> Array:
        with _reading(self.label), _opened(self.path) as (file, size):
            return read_member(file, file.getinfo(self.member), size)


@contextlib.contextmanager
def _reading(label: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, *DAMAGES) as cause:
        raise SnapshotError(
            f"{label}: not weights in .npz form: {cause}; expected arrays named layer/index; "
            "write the file with `verydeep export --to npz`"
        ) from cause


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """An open file and its size in bytes."""
    with Path(path).open("rb") as stream, zipfile.ZipFile(stream) as file:
        yield file, os.fstat(stream.fileno()).st_size


def read_npz_weights(path: str | os.PathLike[str]) -> dict[str, dict[int, ArrayBlob]]:
    """The blobs of each layer of a file by index, in the order of the file.

    Raises:
        SnapshotError: the file is damaged, or has arrays with other names or types.
    """
    layers: dict[str, dict[int, ArrayBlob]] = {}
    with _reading(str(path)), _opened(path) as (file, size):
        for info in file.infolist():
            layer, _, index = info.filename.removesuffix(_MEMBER).rpartition("/")
            if not layer or not index.isdecimal():
                raise ValueError(f"an array is named {info.filename!r}")
            shape, dtype = member_type(file, info, size)
            if dtype.kind not in _NUMBERS:
                raise ValueError(f"{info.filename} has an array {shape} of {dtype}")
            label = f"{path}: layer '{layer}', blob {index}"
            blob = ArrayBlob(label, shape, str(path), info.filename)
            layers.setdefault(layer, {})[int(index)] = blob
    return layers


def check_layer_names(names: Sequence[str], label: str) -> None:
    """Check that the arrays of these layers have valid and distinct names.

    Raises:
        SnapshotError: a name cannot be written, or occurs twice.
    """
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SnapshotError(
                f"{label}: two layers of one name would be one in .npz; expected distinct names, "
                f"got {name!r} twice; rename a layer, or save as .caffemodel"
            )
        if not is_plain(name) or len(name.encode()) > _MAX_NAME:
            raise SnapshotError(
                f"{label}: layer {name[:60]!r} cannot be named in .npz; expected UTF-8 of 1 to "
                f"{_MAX_NAME} bytes without NUL; rename the layer, or save as .caffemodel"
            )


def write_npz_weights(
    path: str | os.PathLike[str], layers: Iterable[tuple[str, Sequence[Array]]]
) -> None:
    """Write (name, blobs) of each layer.

    Shapes: those of the weight blobs.

    Raises:
        SnapshotError: the disk is full or the folder read-only.
    """
    with (
        atomic_write(path, "wb", SnapshotError) as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as file,
    ):
        for name, blobs in layers:
            for index, blob in enumerate(blobs):
                with file.open(f"{name}/{index}{_MEMBER}", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(blob))
