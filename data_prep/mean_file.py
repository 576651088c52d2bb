"""Caffe's mean image: a BlobProto in a .binaryproto file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from prototxt_gen import proto
from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write


def read_mean(path: str | Path) -> npt.NDArray[np.float32]:
    """Read a mean image.

    Shapes: (C, H, W).

    Raises:
        DataError: the file is missing, is not a BlobProto, or its sizes do not fit its data.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as cause:
        raise DataError(
            f"{path}: the mean file cannot be read: {cause.strerror}; "
            "make it with `verydeep compute_image_mean`"
        ) from cause
    try:
        blob = proto.BlobProto.FromString(raw)
    except DecodeError as cause:
        raise DataError(
            f"{path}: not a BlobProto ({cause}); expected a mean image in binary form; "
            "make it with `verydeep compute_image_mean`"
        ) from cause
    shape = _shape_of(blob)
    values = blob.double_data if len(blob.double_data) else blob.data
    if len(shape) != 3 or min(shape) <= 0 or math.prod(shape) != len(values):
        raise DataError(
            f"{path}: a blob of shape {shape} with {len(values)} values; "
            "expected one image of channels x height x width; "
            "make it with `verydeep compute_image_mean`"
        )
    return np.array(values, dtype=np.float32).reshape(shape)


def _shape_of(blob: Any) -> tuple[int, ...]:
    """The shape without the leading 1 that stands for one image."""
    if blob.HasField("shape"):
        shape = tuple(int(size) for size in blob.shape.dim)
    else:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    return shape[1:] if len(shape) == 4 and shape[0] == 1 else shape


def write_mean(path: str | Path, mean: npt.NDArray[np.floating[Any]]) -> None:
    """Write a mean image (C, H, W) with the four old size fields, as Caffe's own tool does."""
    blob = proto.BlobProto(num=1)
    blob.channels, blob.height, blob.width = mean.shape
    blob.data.extend(mean.astype(np.float32).ravel())
    with atomic_write(path, "wb", DataError) as stream:
        stream.write(blob.SerializeToString())
