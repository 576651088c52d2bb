"""The mean image, the mean pixel and the colour components of a database.

Caffe: tools/compute_image_mean.cpp. Sums are of integers (or of float64 in a fixed order), so the
result does not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep import datum as datums
from data_prep.colour import pca_of
from data_prep.datum import COLOR, GRAY, NATIVE, Image, rescale_short_side
from data_prep.progress import Progress
from data_prep.read_plan import RecordSource, default_workers
from prototxt_gen.errors import DataError
from prototxt_gen.sidecar import ColourPca

_CHUNK = 32
_AHEAD = 3


@dataclass(frozen=True)
class MeanOptions:
    """How images are prepared before they are averaged.

    `short_side` rescales isotropically, `crop` takes the central square of that side; together they
    give images of different sizes the same size. `mode` is that of `datum.decode`.

    Units: `short_side` and `crop` in pixels.

    Raises:
        DataError: an option is out of range.
    """

    short_side: int = 0
    crop: int = 0
    mode: str = NATIVE
    jobs: int | None = None

    def __post_init__(self) -> None:
        if min(self.short_side, self.crop) < 0 or self.mode not in (NATIVE, COLOR, GRAY):
            raise DataError(
                f"compute_image_mean: short_side {self.short_side}, crop {self.crop}, mode "
                f"{self.mode!r}; expected sizes of 0 or more and a mode of datum.decode"
            )


@dataclass(frozen=True, eq=False)
class ImageMean:
    """The averages of a database; `mean` is None if the images differ in size.

    The mean and the covariance of the pixel are over all pixels of all images.

    Shapes: mean (C, H, W), pixel (C,), covariance (C, C).
    Units: pixel values, channels in the order of the records (BGR).
    """

    records: int
    pixels: int
    mean: npt.NDArray[np.float64] | None
    pixel: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]

    def pca(self) -> ColourPca:
        """The components for the colour shift.

        Raises:
            DataError: the images do not have three channels.
        """
        if len(self.pixel) != 3:
            raise DataError(
                f"compute_image_mean: colour components of {len(self.pixel)} channels; expected 3; "
                "use a database of colour images"
            )
        return pca_of(self.covariance)


class _Sums:
    """Sums over some records; sums of integers do not depend on how records are grouped."""

    def __init__(self, image: Image) -> None:
        channels = image.shape[2]
        self.exact = image.dtype == np.uint8
        kind = np.int64 if self.exact else np.float64
        self.records = 0
        self.pixels = 0
        self.image: npt.NDArray[Any] | None = np.zeros(image.shape, kind)
        self.pixel: npt.NDArray[Any] = np.zeros(channels, kind)
        self.products: npt.NDArray[Any] = np.zeros((channels, channels), kind)

    def add(self, image: Image, name: str) -> None:
        """Add one image (H, W, C)."""
        if image.shape[2] != len(self.pixel) or self.exact != (image.dtype == np.uint8):
            raise DataError(
                f"{name}: {image.shape[2]} channels of {image.dtype}; expected "
                f"{len(self.pixel)} as in the first record; make the database of one kind of image"
            )
        flat = image.reshape(-1, image.shape[2]).astype(np.float64)
        # Integers below 2**53: the products are exact in float64, in any order of addition.
        self.products += (flat.T @ flat).astype(self.products.dtype)
        self.pixel += flat.sum(axis=0).astype(self.pixel.dtype)
        self.records += 1
        self.pixels += len(flat)
        self._add_image(image)

    def merge(self, other: _Sums, name: str) -> None:
        """Add the sums of later records."""
        if len(other.pixel) != len(self.pixel) or self.exact != other.exact:
            raise DataError(
                f"{name}: {len(other.pixel)} channels; expected {len(self.pixel)} as in the first "
                "record; make the database of one kind of image"
            )
        self.products += other.products
        self.pixel += other.pixel
        self.records += other.records
        self.pixels += other.pixels
        self._add_image(other.image)

    def _add_image(self, image: npt.NDArray[Any] | None) -> None:
        """Add to the sum of images, which is dropped if sizes differ."""
        if self.image is None or image is None or self.image.shape != image.shape:
            self.image = None
        else:
            self.image += image


def compute_image_mean(
    source: RecordSource,
    options: MeanOptions | None = None,
    progress: Progress | None = None,
) -> ImageMean:
    """Average all records of a database.

    Raises:
        DataError: a record cannot be used; the message has its key.
    """
    options = options or MeanOptions()
    total: _Sums | None = None
    with contextlib.closing(_chunks(source, options)) as chunks:
        for stop, future in chunks:
            sums = future.result()
            if total is None:
                total = sums
            else:
                total.merge(sums, f"records up to {source.key(stop - 1)}")
            if progress is not None:
                progress(stop, len(source))
    if total is None:
        raise DataError("compute_image_mean: no records; expected at least one")
    pixel: npt.NDArray[np.float64] = total.pixel / total.pixels
    covariance: npt.NDArray[np.float64] = total.products / total.pixels - np.outer(pixel, pixel)
    mean = None if total.image is None else total.image.transpose(2, 0, 1) / total.records
    return ImageMean(total.records, total.pixels, mean, pixel, covariance)


def _chunks(
    source: RecordSource, options: MeanOptions
) -> Generator[tuple[int, Future[_Sums]], None, None]:
    """Sum chunks of records in threads and yield them in order with the end of each."""
    jobs = default_workers() if options.jobs is None else max(1, options.jobs)
    pool = ThreadPoolExecutor(jobs, "mean")
    waiting: deque[tuple[int, Future[_Sums]]] = deque()
    try:
        for start in range(0, len(source), _CHUNK):
            stop = min(start + _CHUNK, len(source))
            waiting.append((stop, pool.submit(_sum_up, source, range(start, stop), options)))
            if len(waiting) >= _AHEAD * jobs:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _sum_up(source: RecordSource, records: range, options: MeanOptions) -> _Sums:
    sums: _Sums | None = None
    for record in records:
        name = f"record {source.key(record)}"
        message = datums.parse(source.get(record), name)
        image = _prepared(datums.image_of(message, name, options.mode), options, name)
        if sums is None:
            sums = _Sums(image)
        sums.add(image, name)
    if sums is None:
        raise DataError("compute_image_mean: an empty range of records")
    return sums


def _prepared(image: Image, options: MeanOptions, name: str) -> Image:
    if options.short_side:
        image = rescale_short_side(image, options.short_side, name)
    if not options.crop:
        return image
    spare = image.shape[0] - options.crop, image.shape[1] - options.crop
    if min(spare) < 0:
        raise DataError(
            f"{name}: an image of {image.shape[0]}x{image.shape[1]}; expected at least the crop "
            f"of {options.crop}; use --short_side as well"
        )
    row, column = spare[0] // 2, spare[1] // 2
    return image[row : row + options.crop, column : column + options.crop]
