"""Operations on decoded pixels: resizing, and writing a crop into a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.datum import Image
from data_prep.image_file import MAX_PIXELS
from prototxt_gen.errors import DataError

Floats = npt.NDArray[np.float32]
Writer = Callable[[Image, bool, Floats | None, Floats | None, float, Floats], None]
"""Writes a crop into a batch; see `write_crop`."""


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width after resizing to a short side; the other side is rounded half up.

    Units: pixels.
    """
    smaller = min(height, width)
    return (
        max(short_side, (2 * height * short_side + smaller) // (2 * smaller)),
        max(short_side, (2 * width * short_side + smaller) // (2 * smaller)),
    )


def rescale_short_side(image: Image, short_side: int, name: str = "resize") -> Image:
    """Rescale isotropically to a short side in pixels; `name` is for errors.

    An image that shrinks is averaged by area, because bilinear interpolation would alias; one that
    grows is interpolated bilinearly.

    Shapes: image (H, W, C), result (h, w, C), with min(h, w) == short_side.

    Raises:
        DataError: the result would have more than MAX_PIXELS pixels.

    Paper: section 3.1, S, "the smallest side of an isotropically-rescaled training image".
    """
    height, width = short_side_size(image.shape[0], image.shape[1], short_side)
    shrinks = short_side < min(image.shape[:2])
    return _resize(image, height, width, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR, name)


def warp(image: Image, height: int, width: int, name: str = "resize") -> Image:
    """Resize to height x width pixels, bilinearly, as Caffe's resize_height and resize_width.

    Shapes: image (H, W, C), result (height, width, C).

    Raises:
        DataError: the result would have no pixels, or more than MAX_PIXELS.
    """
    return _resize(image, height, width, cv2.INTER_LINEAR, name)


def _resize(image: Image, height: int, width: int, interpolation: int, name: str) -> Image:
    if image.shape[:2] == (height, width):
        return image
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise DataError(
            f"{name}: a size of {height}x{width}; expected at least 1x1 and at most {MAX_PIXELS} "
            f"pixels in all, from {image.shape[0]}x{image.shape[1]}; choose another size"
        )
    try:
        resized: Image = cv2.resize(
            np.ascontiguousarray(image), (width, height), interpolation=interpolation
        )
    except cv2.error as cause:
        raise DataError(
            f"{name}: resizing an image of shape {image.shape}, {image.dtype}, to "
            f"{height}x{width} failed ({cause.err}); expected pixels of 8 bits or float32; "
            "make the record again"
        ) from cause
    return resized if resized.ndim == 3 else resized[:, :, None]


def write_crop(
    crop: Image,
    mirror: bool,
    offsets: Floats | None,
    mean: Floats | None,
    scale: float,
    out: Floats,
) -> None:
    """Write ((pixel - offset) - mean) * scale, mirrored or not.

    Shapes: crop (H, W, C); offsets (C,); mean and out (C, H, W). The mean is read unmirrored.
    """
    for channel, plane in enumerate(_planes(crop)):
        target = out[channel, :, ::-1] if mirror else out[channel]
        target[...] = plane
        if offsets is not None and offsets[channel]:
            target -= offsets[channel]
        if mean is not None:
            target -= mean[channel]
        if scale != 1.0:
            target *= np.float32(scale)


def write_bytes(
    crop: Image,
    mirror: bool,
    offsets: Floats | None,
    mean: Floats | None,
    scale: float,
    out: npt.NDArray[Any],
) -> None:
    """Write the bytes of the pixels, mirrored or not, without the arithmetic.

    Shapes: crop (H, W, C); out (C, H, W), uint8.

    Raises:
        DataError: the pixels are not bytes.
    """
    if crop.dtype != np.uint8:
        raise DataError(
            f"an image of {crop.dtype}; expected bytes, as in the first record; make the database "
            "again with one kind of record"
        )
    for channel, plane in enumerate(_planes(crop)):
        target = out[channel, :, ::-1] if mirror else out[channel]
        target[...] = plane


def _planes(crop: Image) -> Any:
    """The channels of (H, W, C), each (H, W)."""
    if crop.strides[2] == crop.itemsize and crop.shape[2] > 1:
        # Interleaved: OpenCV separates the channels several times faster than strided reads.
        return cv2.split(crop)
    return (crop[:, :, channel] for channel in range(crop.shape[2]))
