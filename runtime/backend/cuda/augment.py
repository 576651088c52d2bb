"""A batch of decoded images, uploaded as bytes, made the input blob on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import ShapeError
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import FLOAT, Arguments, Launcher, blocks


@dataclass(frozen=True)
class Crop:
    """Where an image is cut: the corner's row and column; and whether the cut is mirrored."""

    row: int
    column: int
    mirror: bool


class AugmentOps:
    """Crop, mirror, mean and colour shift; the same numbers as data_prep/transform.py makes."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def augment(
        self,
        images: Sequence[npt.NDArray[np.uint8]],
        crops: Sequence[Crop],
        offsets: npt.NDArray[np.float32],
        y: DeviceArray,
        mean: DeviceArray | None = None,
        scale: float = 1.0,
    ) -> None:
        """y = (pixel - offset - mean) * scale, for the crop of each image.

        Shapes: images (H,W,C) each in its own size; offsets (N,C); y (N,C,h,w), overwritten; mean
        (C,H,W), of the size of all images.

        Raises:
            ShapeError: a crop reaches beyond its image, or the numbers of images do not agree.
        """
        n, channels, height, width = y.shape
        if not len(images) == len(crops) == len(offsets) == n or offsets.shape[1] != channels:
            raise ShapeError(
                f"augment: {len(images)} images, {len(crops)} crops and offsets {offsets.shape} "
                f"for a blob {y.shape}; expected {n} of each, and {channels} offsets an image; "
                "correct the batch"
            )
        for image, crop in zip(images, crops):
            _expect_inside(image, crop, (height, width), channels, mean)
        starts = np.cumsum([0, *(image.size for image in images[:-1])], dtype=np.int64)
        places = [[*image.shape[:2], c.row, c.column, c.mirror] for image, c in zip(images, crops)]
        mean_size = images[0].shape[:2] if mean is not None else (0, 0)
        args: Arguments = (
            self._upload(np.concatenate([image.reshape(-1) for image in images])),
            self._upload(starts),
            self._upload(np.array(places, np.int32)),
            self._upload(np.ascontiguousarray(offsets, FLOAT)),
            *(mean, y, channels, height, width, *mean_size, scale),
        )
        block = self._launcher.constant("augment", "BLOCK")
        grid = (blocks(channels * height * width, block), n, 1)
        self._launcher.run("augment", "augment", grid, args)

    def _upload(self, host: HostArray) -> DeviceArray:
        device = self._launcher.memory.empty(host.size, host.dtype)
        self._launcher.driver.upload(host, device.address)
        return device


def _expect_inside(
    image: npt.NDArray[np.uint8],
    crop: Crop,
    size: tuple[int, int],
    channels: int,
    mean: DeviceArray | None,
) -> None:
    height, width = image.shape[:2]
    inside = 0 <= crop.row <= height - size[0] and 0 <= crop.column <= width - size[1]
    if not inside or image.shape[2] != channels:
        raise ShapeError(
            f"augment: an image of {height}x{width}x{image.shape[2]} is cut at row {crop.row}, "
            f"column {crop.column}; expected {channels} channels, and {size[0]}x{size[1]} pixels "
            "from there; rescale the image or move the crop"
        )
    if mean is not None and mean.size != image.size:
        raise ShapeError(
            f"augment: an image of {height}x{width}; expected the size of the mean image, "
            f"{mean.shape}; use mean values for images of varying size"
        )
