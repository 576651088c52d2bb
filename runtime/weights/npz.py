"""Weights in .npz files, for programs that know numpy and not Caffe.

Layout: an array `<layer>/<i>` for each weight blob, in Caffe's order and shape.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import SnapshotError
from prototxt_gen.files import atomic_write
from runtime.core.npz_arrays import DAMAGES, member_type, read_member
from runtime.weights.layer_names import is_plain

SIGNATURE = b"PK\x03\x04"
SUFFIX = ".npz"
_MEMBER = ".npy"
_NUMBERS = "fiu"
_LONGEST_NAME = 65000
"""Bytes: a member's name, with its index, has 16 bits for its length."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ArrayBlob:
    """One array of a file; its numbers are read when they are asked for."""

    where: str
    path: str
    member: str
    shape: tuple[int, ...]

    has_diff = False

    def fits(self, shape: Sequence[int]) -> bool:
        return self.shape == tuple(shape)

    def check(self) -> None:
        """The file's header was checked against its size when it was opened."""

    def array(self) -> Array:
        """The numbers as stored, in the shape."""
        with _reading(self.where), _opened(self.path) as (file, size):
            return read_member(file, file.getinfo(self.member), size)

    def copy_to(self, out: Array) -> None:
        """Copy into a contiguous array of as many elements."""
        np.copyto(out.reshape(-1), self.array().reshape(-1), casting="same_kind")

    def copy_diff_to(self, out: Array) -> None:
        raise SnapshotError(f"{self.where}: has no gradient; expected weights only; read those")


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, *DAMAGES) as cause:
        raise SnapshotError(
            f"{where}: not weights in .npz form: {cause}; expected arrays named layer/index; "
            "write it with `verydeep export --to npz`"
        ) from cause


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """A file and its size."""
    with Path(path).open("rb") as stream, zipfile.ZipFile(stream) as file:
        yield file, os.fstat(stream.fileno()).st_size


def read_npz_weights(path: str | os.PathLike[str]) -> dict[str, dict[int, ArrayBlob]]:
    """The blobs of each layer of a file, in the order they were written.

    Raises:
        SnapshotError: the file is damaged, or has other names in it.
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
            where = f"{path}: layer '{layer}', blob {index}"
            blob = ArrayBlob(where, str(path), info.filename, shape)
            layers.setdefault(layer, {})[int(index)] = blob
    return layers


def check_layer_names(names: Sequence[str], where: str) -> None:
    """Refuse names of layers whose arrays would not be found again.

    Raises:
        SnapshotError: names the layer and what is wrong with its name.
    """
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SnapshotError(
                f"{where}: two layers of one name would be one in .npz; expected distinct names, "
                f"got {name!r} twice; rename one, or save as .caffemodel"
            )
        if not is_plain(name) or len(name.encode()) > _LONGEST_NAME:
            raise SnapshotError(
                f"{where}: layer {name[:60]!r} cannot be named in .npz; expected UTF-8 of 1 to "
                f"{_LONGEST_NAME} bytes without NUL; rename it, or save as .caffemodel"
            )


def write_npz_weights(
    path: str | os.PathLike[str], layers: Iterable[tuple[str, Sequence[Array]]]
) -> None:
    """Write (name, blobs) of each layer, one after the other.

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
