"""A batch of decoded images, uploaded as bytes, made the input blob on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import ShapeError
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Event
from runtime.backend.cuda.launcher import FLOAT, Arguments, Launcher, blocks, chunks_of
from runtime.backend.cuda.staging import Staging

# A grid's extent along y.
_MOST_IMAGES = 65535


@dataclass(frozen=True)
class Crop:
    """Where an image is cut: the corner's row and column; and whether the cut is mirrored."""

    row: int
    column: int
    mirror: bool


@dataclass(frozen=True)
class _Slot:
    """Where a batch arrives: its bytes, the tables of its launch, and when it was last read."""

    pixels: DeviceArray
    starts: DeviceArray
    places: DeviceArray
    offsets: DeviceArray
    used: Event


class AugmentOps:
    """Crop, mirror, mean and colour shift; the same numbers as data_prep/transform.py makes."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._staging: Staging | None = None
        self._slots: list[_Slot] = []

    def batch(self, pixels: HostArray, offsets: HostArray, scale: float, y: DeviceArray) -> None:
        """See InputBatch.

        The bytes go through pinned memory, on a stream of their own, into one of two arrays in
        turn: the next batch is copied while the device still computes the last one.
        """
        n, channels, height, width = y.shape
        if pixels.shape != y.shape or offsets.shape != (n, channels):
            raise ShapeError(
                f"input_batch: pixels {pixels.shape} and offsets {offsets.shape} for a blob "
                f"{y.shape}; expected the blob's shape, and an offset a channel of each image; "
                "correct the batch"
            )
        slot = self._slot(n * channels, height * width)
        assert self._staging is not None
        self._staging.arrive(self._staging.send(pixels, slot.pixels, after=slot.used))
        self._launcher.driver.upload(np.ascontiguousarray(offsets, FLOAT), slot.offsets.address)
        # A channel of an image is to the kernel an image of one channel.
        block = self._launcher.constant("augment", "BLOCK")
        sizes = (1, 1, height * width, 0, 0, scale)
        places = (slot.starts, slot.places, slot.offsets)
        for first, count in chunks_of(n * channels, _MOST_IMAGES):
            args: Arguments = (
                slot.pixels,
                *(
                    table.view(first * each, (count * each,))
                    for table, each in zip(places, (1, 5, 1))
                ),
                None,
                y.view(first * height * width, (count * height * width,)),
                *sizes,
            )
            grid = (blocks(height * width, block), count, 1)
            self._launcher.run("augment", "augment", grid, args)
        self._launcher.driver.record(slot.used)

    def _slot(self, images: int, pixels: int) -> _Slot:
        """The array whose turn it is, of the size of this batch."""
        driver = self._launcher.driver
        if self._staging is None:
            self._staging = Staging(driver)
        if len(self._slots) < 2 or self._slots[0].pixels.shape != (images, pixels):
            if self._slots and self._slots[0].pixels.shape != (images, pixels):
                # Copies into the old arrays must be done before their memory serves others.
                driver.synchronize()
                self._slots.clear()
            starts = np.arange(images, dtype=np.int64) * pixels
            places = np.tile(np.array([1, pixels, 0, 0, 0], np.int32), (images, 1))
            self._slots.append(
                _Slot(
                    self._launcher.memory.empty((images, pixels), np.dtype(np.uint8)),
                    self._upload(starts),
                    self._upload(places.reshape(-1)),
                    self._launcher.memory.empty(images, FLOAT),
                    driver.event(),
                )
            )
            driver.record(self._slots[-1].used)
            return self._slots[-1]
        self._slots.reverse()
        return self._slots[-1]

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
