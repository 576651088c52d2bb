"""Conversion between BlobProto and arrays, for mean images and other small blobs.

Caffe: io.cpp (ReadProtoFromBinaryFile) and pycaffe's io.blobproto_to_array. The runtime has a
separate reader for weights, which are large.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from prototxt_gen import proto
from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from prototxt_gen.geometry_limits import MAX_AXES
from prototxt_gen.proto import Message
from prototxt_gen.regular_file import RegularFile

Array = npt.NDArray[Any]

_LEGACY_FIELDS = ("num", "channels", "height", "width")


def blob_shape(blob: Message) -> tuple[int, ...]:
    """The shape of a BlobProto; the four legacy dimensions take precedence, as in Caffe."""
    if any(blob.HasField(name) for name in _LEGACY_FIELDS):
        return tuple(int(getattr(blob, name)) for name in _LEGACY_FIELDS)
    return tuple(int(dim) for dim in blob.shape.dim)


def blob_to_array(blob: Message, diff: bool = False, where: str = "BlobProto") -> Array:
    """The values of a BlobProto, or its diff.

    Shapes: the shape of the BlobProto; float32, or float64 if it stores doubles.

    Raises:
        DataError: the number of values does not match the shape, or there are too many axes.
    """
    doubles, floats = (blob.double_diff, blob.diff) if diff else (blob.double_data, blob.data)
    shape = blob_shape(blob)
    values, dtype = (doubles, np.float64) if len(doubles) else (floats, np.float32)
    if len(shape) > MAX_AXES:
        raise DataError(
            f"{where}: a shape of {len(shape)} axes; expected at most {MAX_AXES}, as in Caffe; "
            "write the file again"
        )
    if min(shape, default=1) < 0 or math.prod(shape) != len(values):
        raise DataError(
            f"{where}: shape and numbers disagree; expected as many numbers as shape {shape} "
            f"has, got {len(values)}; write the file again"
        )
    return np.array(values, dtype).reshape(shape)


def array_to_blob(array: Array, diff: Array | None = None, legacy: bool = False) -> Message:
    """Store an array in a BlobProto; `legacy` writes four dimensions, padded with 1, for a shape.

    Shapes: array of any shape, with `legacy` of at most four axes; diff of the same shape.

    Raises:
        DataError: the shapes differ, or there are too many axes for the legacy form.
    """
    if diff is not None and diff.shape != array.shape:
        raise DataError(
            f"BlobProto: expected a diff of the data's shape {array.shape}, got {diff.shape}"
        )
    blob = proto.BlobProto()
    if not legacy:
        blob.shape.dim.extend(array.shape)
    elif array.ndim > len(_LEGACY_FIELDS):
        raise DataError(
            f"BlobProto: expected at most {len(_LEGACY_FIELDS)} axes for num, channels, height "
            f"and width, got shape {array.shape}; write the current form"
        )
    else:
        padded = (1,) * (len(_LEGACY_FIELDS) - array.ndim) + array.shape
        for name, dim in zip(_LEGACY_FIELDS, padded):
            setattr(blob, name, dim)
    blob.data.extend(array.astype(np.float32).ravel())
    if diff is not None:
        blob.diff.extend(diff.astype(np.float32).ravel())
    return blob


def read_binaryproto(path: str | os.PathLike[str]) -> Array:
    """Read the array in a .binaryproto file.

    Shapes: the stored shape, such as (1,C,H,W) of a mean image.

    Raises:
        DataError: the file is missing, or is no valid BlobProto.
    """
    expected = "a .binaryproto file, such as `verydeep compute_image_mean` writes"
    raw = RegularFile(path, expected=expected).read()
    try:
        blob = proto.BlobProto.FromString(raw)
    except DecodeError as cause:
        raise DataError(
            f"{path}: not a BlobProto ({cause}); expected a binary array such as a mean image; "
            "make it with `verydeep compute_image_mean`"
        ) from cause
    if not blob_shape(blob):
        raise DataError(
            f"{path}: a BlobProto without a shape; expected a binary array such as a mean image; "
            "make it with `verydeep compute_image_mean`"
        )
    return blob_to_array(blob, where=str(path))


def write_binaryproto(path: str | os.PathLike[str], array: Array, legacy: bool = True) -> None:
    """Write an array to a file, by default with the four dimensions that Caffe's tools write.

    Shapes: any; with `legacy` at most four axes.

    Raises:
        DataError: the file cannot be written, or there are too many axes.
    """
    message = array_to_blob(array, legacy=legacy)
    with atomic_write(path, "wb", DataError) as stream:
        stream.write(message.SerializeToString(deterministic=True))
