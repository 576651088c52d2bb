"""Conversions between arrays and messages. Caffe: io.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from data_prep import datum as datums
from prototxt_gen import binaryproto, proto
from prototxt_gen.errors import DataError
from prototxt_gen.proto import Message
from runtime.pycaffe.errors import ArrayError

Array = npt.NDArray[Any]


def blobproto_to_array(blob: Message, return_diff: bool = False) -> Array:
    """The data of a BlobProto, or its diff.

    Shapes: that of the message, of four axes in messages of old versions; () for one number alone.

    Raises:
        ArrayError: the count of numbers does not match the shape; also a ValueError.
    """
    if len(blob.data) == 1 and not return_diff and not binaryproto.blob_shape(blob):
        return np.array(blob.data[0], np.float32)
    if not binaryproto.blob_shape(blob):
        raise ArrayError(
            f"blobproto_to_array: a BlobProto without a shape and {len(blob.data)} numbers; "
            "expected shape, or num, channels, height and width; set it"
        )
    try:
        return binaryproto.blob_to_array(blob, return_diff, "blobproto_to_array")
    except DataError as cause:
        raise ArrayError(str(cause)) from cause


def array_to_blobproto(arr: Array, diff: Array | None = None) -> Message:
    """A BlobProto of an array, and of its diff if it is given.

    Shapes: any; diff the same as arr.

    Raises:
        ArrayError: the diff has another shape; also a ValueError.
    """
    try:
        return binaryproto.array_to_blob(
            np.asarray(arr), None if diff is None else np.asarray(diff)
        )
    except DataError as cause:
        raise ArrayError(f"array_to_blobproto: {cause}") from cause


def arraylist_to_blobprotovector_str(arraylist: Iterable[Array]) -> bytes:
    """Arrays as one serialised BlobProtoVector."""
    blobs = [array_to_blobproto(array) for array in arraylist]
    return bytes(proto.BlobProtoVector(blobs=blobs).SerializeToString())


def blobprotovector_str_to_arraylist(str: bytes) -> list[Array]:
    """The arrays of a serialised BlobProtoVector.

    Raises:
        ArrayError: the bytes are not a BlobProtoVector; also a ValueError.
    """
    try:
        vector = proto.BlobProtoVector.FromString(str)
    except DecodeError as cause:
        raise ArrayError(
            f"blobprotovector_str_to_arraylist: not a BlobProtoVector ({cause}); expected the "
            "result of arraylist_to_blobprotovector_str"
        ) from cause
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: Array, label: int | None = None) -> Message:
    """A raw Datum: bytes for uint8, floats for other types.

    Shapes: arr (channels,height,width).

    Raises:
        ArrayError: not three axes; also a ValueError.
    """
    try:
        message = datums.from_array(np.asarray(arr), 0 if label is None else label)
    except DataError as cause:
        raise ArrayError(str(cause)) from cause
    if label is None:
        message.ClearField("label")
    return message


def datum_to_array(datum: Message) -> Array:
    """The values of a Datum; an encoded image is decoded, unlike in pycaffe.

    Shapes: (channels,height,width), uint8 or float32.

    Raises:
        ArrayError: the values do not match the sizes, or the image cannot be decoded; also a
            ValueError.
    """
    try:
        return datums.to_array(datum)
    except DataError as cause:
        raise ArrayError(str(cause)) from cause
