"""Small images and records for the tests of this folder."""

from __future__ import annotations

import cv2
import numpy as np

from data_prep import datum
from data_prep.transform import (
    ColourShift,
    Crop,
    MeanImage,
    MeanValues,
    Mirror,
    Rescale,
    Scale,
    Transform,
)


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colour image, which JPEG keeps nearly as it is."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)


def jpeg(image: np.ndarray) -> bytes:
    return datum.encode(image, "jpg", 95, "test")


def record(image: np.ndarray, label: int, encoded: bool = True) -> bytes:
    """A serialised Datum of an image (H, W, C)."""
    if encoded:
        return datum.from_encoded(jpeg(image), label).SerializeToString()
    return datum.from_array(image.transpose(2, 0, 1), label).SerializeToString()


class Records:
    """Serialised Datums in memory."""

    def __init__(self, values: list[bytes]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def get(self, index: int) -> bytes:
        return self.values[index]

    def key(self, index: int) -> str:
        return f"{index:08d}_image{index}.jpg"


def transform(
    train: bool = False,
    crop_size: int = 0,
    mirror: bool = False,
    scale: float = 1.0,
    mean_values: tuple[float, ...] = (),
    mean_image: np.ndarray | None = None,
    mode: str = datum.NATIVE,
    short_side: tuple[int, int] | None = None,
    colour: ColourShift | None = None,
) -> Transform:
    """A transform with the steps that the arguments ask for, in the order of STEPS."""
    steps = [
        Rescale(*short_side, random=train) if short_side else None,
        None if mean_image is None else MeanImage(mean_image),
        Crop(crop_size, random=train) if crop_size else None,
        Mirror() if mirror else None,
        MeanValues(mean_values) if mean_values else None,
        colour,
        Scale(scale) if scale != 1.0 else None,
    ]
    return Transform(tuple(step for step in steps if step is not None), mode)
