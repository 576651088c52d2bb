"""Uploads a batch of images as bytes and converts it to the input blob on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prototxt_gen.errors import ShapeError
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Event
from runtime.backend.cuda.launcher import FLOAT, Arguments, Launcher, blocks, chunks_of
from runtime.backend.cuda.staging import Staging

# The largest extent of a grid along y.
_MOST_IMAGES = 65535


@dataclass(frozen=True)
class _Slot:
    """Device memory for a batch: its bytes, the tables of its launch, the event of its last use."""

    pixels: DeviceArray
    starts: DeviceArray
    places: DeviceArray
    offsets: DeviceArray
    used: Event


class AugmentOps:
    """Mean and colour shift on the device; bit for bit the results of `datum.write_crop`."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._staging: Staging | None = None
        self._slots: list[_Slot] = []

    def batch(
        self, pixels: HostArray, offsets: HostArray | None, scale: float, y: DeviceArray
    ) -> None:
        """See InputBatch.

        Bytes are copied through pinned memory, on a separate stream, to two arrays by turns, so
        that the next batch is copied while the device computes with the previous one.

        Shapes: pixels and y (N,C,H,W); offsets (N,C), None where `pixels` are the values of y.

        Raises:
            ShapeError: the shapes of the batch and of the blob differ.
        """
        n, channels, height, width = y.shape
        if pixels.shape != y.shape or (offsets is not None and offsets.shape != (n, channels)):
            given = "none" if offsets is None else offsets.shape
            raise ShapeError(
                f"input_batch: pixels {pixels.shape} and offsets {given} for a blob {y.shape}; "
                "expected the blob's shape, and an offset for each channel of each image; reshape "
                "the batch"
            )
        if offsets is None:
            self._launcher.expect_own("input_batch", y)
            self._launcher.driver.upload(np.ascontiguousarray(pixels, FLOAT), y.address)
            return
        slot = self._slot(n * channels, height * width)
        assert self._staging is not None
        self._staging.arrive(self._staging.send(pixels, slot.pixels, after=slot.used))
        self._launcher.driver.upload(np.ascontiguousarray(offsets, FLOAT), slot.offsets.address)
        # To the kernel each channel of an image is an image of one channel.
        block = self._launcher.constant("augment", "BLOCK")
        sizes = (1, 1, height * width, 0, 0, scale)
        places = (slot.starts, slot.places, slot.offsets)
        for first, count in chunks_of(n * channels, _MOST_IMAGES):
            args: Arguments = (
                slot.pixels,
                *(
                    table.view(first * width, (count * width,))
                    for table, width in zip(places, (1, 5, 1))
                ),
                None,
                y.view(first * height * width, (count * height * width,)),
                *sizes,
            )
            grid = (blocks(height * width, block), count, 1)
            self._launcher.run("augment", "augment", grid, args)
        self._launcher.driver.record(slot.used)

    def _slot(self, images: int, pixels: int) -> _Slot:
        """The next of the two slots, which are allocated again when the batch size changes."""
        driver = self._launcher.driver
        if self._staging is None:
            self._staging = Staging(driver)
        if len(self._slots) < 2 or self._slots[0].pixels.shape != (images, pixels):
            if self._slots and self._slots[0].pixels.shape != (images, pixels):
                # Copies into the old arrays must end before their memory is used again.
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

    def _upload(self, host: HostArray) -> DeviceArray:
        device = self._launcher.memory.empty(host.size, host.dtype)
        self._launcher.driver.upload(host, device.address)
        return device
