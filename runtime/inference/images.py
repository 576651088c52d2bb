"""Images prepared for a net: decoded, resized, cropped, with the mean subtracted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from data_prep.datum import COLOR, GRAY, Image, decode, rescale_short_side, warp
from data_prep.image_file import read_image_file
from prototxt_gen.errors import ShapeError
from runtime.backend.base import HostArray
from runtime.bundle import preprocessing
from runtime.bundle.preprocessing import Preprocessing

ImageLike = str | Path | bytes | Any
"""A path, the bytes of an image file, or an array (H,W,C) of uint8: RGB, or (H,W,1) gray."""


def are_images(inputs: Any) -> TypeGuard[Sequence[ImageLike]]:
    """Whether inputs are a list of paths, bytes or arrays (H,W,C) of uint8."""
    return (
        isinstance(inputs, list | tuple)
        and len(inputs) > 0
        and all(isinstance(item, str | Path | bytes) or _is_pixels(item) for item in inputs)
    )


def prepare(image: ImageLike, preparation: Preprocessing, name: str = "image") -> HostArray:
    """The array of one image; `name` is for errors where the image is no path.

    Shapes: result (C,H,W) float32, with the height and width of the crop.

    Raises:
        DataError: the image cannot be read or decoded.
        ShapeError: it is smaller than the crop after it was resized, or has other channels.
    """
    gray = preparation.channel_order == preprocessing.GRAY
    if isinstance(image, str | Path):
        name = str(image)
        pixels = decode(read_image_file(image), name, GRAY if gray else COLOR)
    elif isinstance(image, bytes):
        pixels = decode(image, name, GRAY if gray else COLOR)
    else:
        pixels = _bgr(image, preparation.channels, name)
    if preparation.warp is not None:
        pixels = warp(pixels, *preparation.warp, name)
    elif preparation.short_side is not None:
        pixels = rescale_short_side(pixels, preparation.short_side, name)
    pixels = _central_crop(pixels, preparation.crop, name)
    if preparation.channel_order == preprocessing.RGB:
        pixels = pixels[:, :, ::-1]
    mean = np.array(preparation.mean_value or (0.0,), np.float32)
    values = (pixels.astype(np.float32) - mean) * np.float32(preparation.scale)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _is_pixels(item: Any) -> bool:
    return (
        isinstance(item, np.ndarray)
        and item.dtype == np.uint8
        and item.ndim == 3
        and item.shape[2] in (1, 3)
        and item.shape[0] not in (1, 3)
    )


def _bgr(image: Image, channels: int, name: str) -> Image:
    """Pixels in the order of decoded files."""
    if image.shape[2] == channels:
        return image[:, :, ::-1]
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    raise ShapeError(
        f"{name}: an array of shape {image.shape}; expected (H,W,1) for a net of gray images; "
        "convert it to gray"
    )


def _central_crop(pixels: Image, crop: tuple[int, int], name: str) -> Image:
    top, left = (have - want for have, want in zip(pixels.shape[:2], crop))
    if min(top, left) < 0:
        raise ShapeError(
            f"{name}: {pixels.shape[0]}x{pixels.shape[1]} pixels; expected at least the crop of "
            f"{crop[0]}x{crop[1]}; give a short side of at least {max(crop)}"
        )
    top, left = top // 2, left // 2
    return pixels[top : top + crop[0], left : left + crop[1]]
