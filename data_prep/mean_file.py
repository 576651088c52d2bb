"""Caffe's mean image: a BlobProto in a .binaryproto file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.binaryproto import read_binaryproto, write_binaryproto
from prototxt_gen.errors import DataError


def read_mean(path: str | Path) -> npt.NDArray[np.float32]:
    """Read a mean image, of shape (C, H, W) or (1, C, H, W) in the file.

    Shapes: result (C, H, W).
    Units: BGR pixel values.

    Raises:
        DataError: the file is missing, is not a BlobProto, or has no single image.
    """
    values = read_binaryproto(path)
    shape = values.shape[1:] if values.ndim == 4 and values.shape[0] == 1 else values.shape
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(
            f"{path}: a blob of shape {values.shape}; expected one image of channels x height x "
            f"width; make it with `verydeep compute_image_mean`"
        )
    return np.asarray(values.reshape(shape), np.float32)


def write_mean(path: str | Path, mean: npt.NDArray[np.floating[Any]]) -> None:
    """Write a mean image with the four legacy size fields, as Caffe's own tool.

    Shapes: mean (C, H, W).

    Raises:
        DataError: the file cannot be written.
    """
    write_binaryproto(path, mean, legacy=True)
