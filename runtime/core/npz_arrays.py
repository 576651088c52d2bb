"""Reading arrays from .npz files whose headers are checked against the size of the file."""

from __future__ import annotations

import math
import struct
import sys
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_MEMBER = ".npy"
_MOST_DEFLATION = 1032
"""The largest expansion of a byte by inflating."""
_SLACK = 1 << 12
_ENCRYPTED = 1
_KINDS = "fiubU"
DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    EOFError,
    LookupError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    MemoryError,
    SystemError,
)
"""Exceptions of zipfile and numpy for damaged files, other than OSError and ValueError."""

Array = npt.NDArray[Any]


def read_arrays(path: Path, *names: str) -> dict[str, Array]:
    """Read the named arrays: numbers, Booleans or text.

    Shapes: as stored.

    Raises:
        OSError, ValueError: the file cannot be read, is damaged, lacks one of the arrays, or
            declares more than it stores.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as file:
            size = path.stat().st_size
            return {name: read_member(file, file.getinfo(name + _MEMBER), size) for name in names}
    except DAMAGES as cause:
        raise ValueError(f"{type(cause).__name__}: {cause}") from cause


def read_member(file: zipfile.ZipFile, info: zipfile.ZipInfo, stored: int) -> Array:
    """Read the array in a member of a file of `stored` bytes.

    Shapes: as stored.

    Raises:
        ValueError, or one of DAMAGES: the member is damaged or declares more than it stores.
    """
    member_type(file, info, stored)
    with file.open(info) as stream:
        array = np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    if array.dtype.kind == "U" and array.nbytes:
        words = array.reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if words.max() > sys.maxunicode:
            raise ValueError(f"{info.filename} has invalid Unicode characters")
    return array


def member_type(
    file: zipfile.ZipFile, info: zipfile.ZipInfo, stored: int
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array of a member of a file of `stored` bytes.

    Raises:
        ValueError, or one of DAMAGES: the member is damaged or declares more than it stores.
    """
    _check_sizes(info, stored)
    with file.open(info) as stream:
        shape, dtype = _read_header(stream)
        expected = stream.tell() + math.prod(shape) * dtype.itemsize
    if dtype.kind not in _KINDS or min(shape, default=0) < 0:
        raise ValueError(f"{info.filename} has an array {shape} of {dtype}")
    if expected != info.file_size:
        raise ValueError(f"{info.filename} has {info.file_size} bytes, {expected} expected")
    return shape, dtype


def _check_sizes(info: zipfile.ZipInfo, stored: int) -> None:
    """Check that a member's size is possible for a file of `stored` bytes."""
    if info.flag_bits & _ENCRYPTED:
        raise ValueError(f"{info.filename} is encrypted")
    most = {
        zipfile.ZIP_STORED: info.compress_size,
        zipfile.ZIP_DEFLATED: _MOST_DEFLATION * info.compress_size + _SLACK,
    }.get(info.compress_type)
    if most is None:
        raise ValueError(
            f"{info.filename} has the compression method {info.compress_type}, unsupported"
        )
    if info.compress_size > stored or info.file_size > most:
        raise ValueError(f"{info.filename} declares {info.file_size} bytes, more than it can have")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"unsupported npy version {version}")
    return tuple(shape), dtype
