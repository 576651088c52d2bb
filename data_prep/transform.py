"""The transform of an image: a list of steps from decoded pixels to a slice of the input blob.

Caffe: data_transformer.cpp. value = (pixel - mean) * scale; a mean image is read at the uncropped,
unmirrored position; TEST crops the centre, TRAIN anywhere; mirroring depends on `mirror` alone.

Paper: section 3.1. Before the crop the image is rescaled isotropically until its short side is S,
fixed or drawn from [Smin, Smax] for every image; the colours are shifted.

Random numbers: every image has its own sequence of words (see philox), and each step declares the
words that it uses. The positions are fixed: 0 draws S, 1 and 2 the row and the column of the crop,
3 the mirror, 4 to 7 the three gaussians of the colour shift. The streams differ from Caffe's, so
that results do not depend on the order in which images are made.

To add a step, define a subclass of Step here and add it to STEPS.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from data_prep import philox
from data_prep.boxes import Placement
from data_prep.colour import PAPER_STD, read_pca, shift_of
from data_prep.datum import (
    COLOR,
    GRAY,
    NATIVE,
    Floats,
    Image,
    Writer,
    rescale_short_side,
    short_side_size,
    write_crop,
)
from data_prep.mean_file import read_mean
from data_prep.transform_step import Sample, Settings, Size, Step
from prototxt_gen.errors import DataError, ProtoError, ShapeError
from prototxt_gen.sidecar import ColourPca

AnyStep = TypeVar("AnyStep", bound=Step)


@dataclass(frozen=True)
class Rescale(Step):
    """Rescales isotropically to a short side drawn from [low, high], or to its middle.

    Units: pixels.

    Paper: section 4.1 tests a net that was trained on a range at Q = 0.5 (Smin + Smax).
    """

    low: int
    high: int
    random: bool = True

    words = slice(0, 1)

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ProtoError(
                f"short side: a range of {self.low} to {self.high}; expected 0 < Smin <= Smax"
            )

    @classmethod
    def read(cls, settings: Settings) -> Step | None:
        side = settings.options.short_side
        if side is None:
            return None
        low, high = (side, side) if isinstance(side, int) else side
        return cls(low, high, settings.train)

    def short_side(self, words: philox.Words) -> int:
        """The short side S of one image. Units: pixels."""
        if not self.random:
            return (self.low + self.high) // 2
        return self.low + _integer(words[0], self.high - self.low + 1)

    def apply(self, sample: Sample, words: philox.Words) -> None:
        sample.pixels = rescale_short_side(sample.pixels, self.short_side(words), sample.name)

    def size(self, before: Size) -> Size:
        return None

    def place(self, placement: Placement, words: philox.Words) -> Placement:
        height, width = short_side_size(placement.height, placement.width, self.short_side(words))
        return placement.rescaled(height, width)


@dataclass(frozen=True, eq=False)
class MeanImage(Step):
    """Subtracts a mean image (C, H, W) of the size of all images. Units: BGR pixel values."""

    mean: Floats

    keeps_bytes = False

    @classmethod
    def read(cls, settings: Settings) -> Step | None:
        param = settings.param
        return cls(read_mean(param.mean_file)) if param.HasField("mean_file") else None

    def apply(self, sample: Sample, words: philox.Words) -> None:
        height, width, channels = sample.pixels.shape
        if self.mean.shape != (channels, height, width):
            raise ShapeError(
                f"{sample.name}: an image of {channels}x{height}x{width}; expected the size of the "
                f"mean image, {'x'.join(map(str, self.mean.shape))}; use mean_value for images of "
                "varying size"
            )
        sample.mean = self.mean


@dataclass(frozen=True)
class Crop(Step):
    """Takes a square of `length` pixels, at a random position or from the centre."""

    length: int
    random: bool = True

    words = slice(1, 3)

    @classmethod
    def read(cls, settings: Settings) -> Step | None:
        length = int(settings.param.crop_size)
        return cls(length, settings.train) if length else None

    def corner(self, height: int, width: int, words: philox.Words) -> tuple[int, int]:
        """The first row and column of the crop of an image of this size."""
        spare = height - self.length, width - self.length
        if not self.random:
            return spare[0] // 2, spare[1] // 2
        return _integer(words[0], spare[0] + 1), _integer(words[1], spare[1] + 1)

    def apply(self, sample: Sample, words: philox.Words) -> None:
        height, width = sample.pixels.shape[:2]
        if min(height, width) < self.length:
            raise ShapeError(
                f"{sample.name}: an image of {height}x{width}; expected at least crop_size "
                f"{self.length}; rescale the images or shrink the crop"
            )
        row, column = self.corner(height, width, words)
        rows, columns = slice(row, row + self.length), slice(column, column + self.length)
        sample.pixels = sample.pixels[rows, columns]
        if sample.mean is not None:
            sample.mean = sample.mean[:, rows, columns]

    def size(self, before: Size) -> Size:
        return self.length, self.length

    def place(self, placement: Placement, words: philox.Words) -> Placement:
        row, column = self.corner(placement.height, placement.width, words)
        return placement.cropped(row, column, self.length)


@dataclass(frozen=True)
class Mirror(Step):
    """Mirrors every second image on average, in TRAIN and in TEST."""

    words = slice(3, 4)

    @classmethod
    def read(cls, settings: Settings) -> Step | None:
        return cls() if settings.param.mirror else None

    def mirrors(self, words: philox.Words) -> bool:
        """Whether an image is mirrored."""
        return bool(_integer(words[0], 2))

    def apply(self, sample: Sample, words: philox.Words) -> None:
        sample.mirror = self.mirrors(words)

    def place(self, placement: Placement, words: philox.Words) -> Placement:
        return dataclasses.replace(placement, mirror=self.mirrors(words))


@dataclass(frozen=True)
class MeanValues(Step):
    """Subtracts one value, or one for each channel. Units: BGR pixel values."""

    values: tuple[float, ...]

    @classmethod
    def read(cls, settings: Settings) -> Step | None:
        values = tuple(float(value) for value in settings.param.mean_value)
        return cls(values) if values else None

    def apply(self, sample: Sample, words: philox.Words) -> None:
        channels = sample.pixels.shape[2]
        if len(self.values) not in (1, channels):
            raise ProtoError(
                f"{sample.name}: Specify either 1 mean_value or as many as channels: {channels}; "
                f"got {len(self.values)}"
            )
        sample.offsets = np.zeros(channels, np.float32) + np.array(self.values, np.float32)


@dataclass(frozen=True)
class ColourShift(Step):
    """Adds one random colour to all pixels of an image (see colour); `std` is that of its draws."""

    pca: ColourPca
    std: float = PAPER_STD

    words = slice(4, 8)

    @classmethod
    def read(cls, settings: Settings) -> Step | None:
        std, pca = settings.options.colour_shift, settings.options.pca
        if not settings.train or not std or pca is None:
            return None
        return cls(read_pca(settings.root / pca) if isinstance(pca, str) else pca, std)

    def apply(self, sample: Sample, words: philox.Words) -> None:
        channels = sample.pixels.shape[2]
        if channels != 3:
            raise DataError(
                f"{sample.name}: a colour shift on {channels} channels; expected 3 (BGR); "
                "set force_color, or leave the colour shift out"
            )
        offsets = np.zeros(channels, np.float32) if sample.offsets is None else sample.offsets
        sample.offsets = offsets - shift_of(self.pca, self.std, philox.to_normal(words)[:3])


@dataclass(frozen=True)
class Scale(Step):
    """Multiplies values by a factor after the means have been subtracted."""

    factor: float

    @classmethod
    def read(cls, settings: Settings) -> Step | None:
        factor = float(settings.param.scale)
        return cls(factor) if factor != 1.0 else None

    def apply(self, sample: Sample, words: philox.Words) -> None:
        sample.scale *= self.factor


STEPS: tuple[type[Step], ...] = (
    Rescale,
    MeanImage,
    Crop,
    Mirror,
    MeanValues,
    ColourShift,
    Scale,
)
"""All steps in the order in which they are applied."""


@dataclass(frozen=True, eq=False)
class Transform:
    """The steps that are applied to every image, and how images are decoded (see datum).

    Raises:
        ProtoError: steps contradict each other.
    """

    steps: tuple[Step, ...] = ()
    mode: str = NATIVE

    def __post_init__(self) -> None:
        if self.find(MeanImage) and self.find(MeanValues):
            raise _two_means("transform_param")
        rescale, crop = self.find(Rescale), self.find(Crop)
        if rescale and crop and rescale.low < crop.length:
            raise ProtoError(
                f"short side: {rescale.low} is smaller than crop_size {crop.length}; "
                "expected at least the crop; enlarge S or shrink the crop"
            )

    @classmethod
    def read(cls, settings: Settings) -> Transform:
        """Create the transform of a layer; a mean file is loaded.

        Raises:
            ProtoError: settings contradict each other.
            DataError: a mean file or a file of colour components cannot be read.
        """
        param = settings.param
        if param.HasField("mean_file") and len(param.mean_value):
            raise _two_means(settings.name)
        if param.force_color and param.force_gray:
            raise ProtoError(
                f"{settings.name}: cannot set both force_color and force_gray; remove one of them"
            )
        steps = (step for kind in STEPS if (step := kind.read(settings)) is not None)
        return cls(
            tuple(steps), COLOR if param.force_color else GRAY if param.force_gray else NATIVE
        )

    def find(self, kind: type[AnyStep]) -> AnyStep | None:
        """The step of a kind; None if there is none."""
        return next((step for step in self.steps if isinstance(step, kind)), None)

    def without(self, *kinds: type[Step]) -> Transform:
        """The transform without the steps of some kinds."""
        steps = tuple(step for step in self.steps if not isinstance(step, kinds))
        return dataclasses.replace(self, steps=steps)

    @property
    def word_count(self) -> int:
        """The number of random words that an image needs."""
        return max((step.words.stop for step in self.steps), default=0)

    @property
    def keeps_bytes(self) -> bool:
        """Whether a device can make the batch from bytes, offsets and the scale."""
        return all(step.keeps_bytes for step in self.steps)

    @property
    def scale(self) -> float:
        """The factor that values are multiplied by."""
        step = self.find(Scale)
        return 1.0 if step is None else step.factor

    def draw(
        self, seed: int, stream: int, upper: philox.IntLike, lower: philox.IntLike
    ) -> philox.Words:
        """Draw the words of images by the halves of their sample numbers.

        Shapes: upper and lower (N,), result (N, word_count).
        """
        return philox.words(seed, stream, upper, lower, self.word_count)

    def size(self, before: Size) -> Size:
        """The size of an image after all steps; None if it differs from image to image."""
        for step in self.steps:
            before = step.size(before)
        return before

    def output_shape(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """The shape (C, H, W) of a transformed image of this size.

        Raises:
            ProtoError: the shape differs from image to image, even if their sizes are equal.
        """
        size = self.size((height, width))
        if size is None:
            raise ProtoError(
                "transform_param: images are rescaled by their short side but not cropped, so they "
                "differ in size; set crop_size"
            )
        return channels, *size

    def sample(self, image: Image, words: philox.Words, channels: int, name: str) -> Sample:
        """Apply all steps to an image.

        Shapes: image (H, W, C) uint8 or float32; words (word_count,).

        Raises:
            ShapeError, DataError: the image does not fit the crop, the mean or the batch.
            ProtoError: the settings do not fit its channels.
        """
        if image.shape[2] != channels:
            raise DataError(
                f"{name}: an image of {image.shape[2]} channels; expected {channels} as in the "
                "first record; set force_color (or force_gray) in transform_param"
            )
        sample = Sample(image, name)
        for step in self.steps:
            step.apply(sample, words[step.words])
        return sample

    def apply(self, image: Image, words: philox.Words, out: Floats, name: str) -> None:
        """Write one transformed image into its slice of a batch of floats.

        Shapes: as in `sample`; out (C, h, w), overwritten.

        Raises:
            ShapeError, DataError, ProtoError: as in `sample` and `write`.
        """
        write(self.sample(image, words, out.shape[0], name), out)

    def placement(self, height: int, width: int, words: philox.Words) -> Placement:
        """The position of a stored image of this size in its transformed image.

        Shapes: words (word_count,).
        """
        placement = Placement.whole(height, width)
        for step in self.steps:
            placement = step.place(placement, words[step.words])
        return placement


def write(sample: Sample, out: Floats, writer: Writer = write_crop) -> None:
    """Write a transformed image into its slice of a batch.

    Shapes: out (C, H, W), overwritten.

    Raises:
        ShapeError: the image has another size than the slice.
    """
    height, width = sample.pixels.shape[:2]
    if (height, width) != out.shape[1:]:
        raise ShapeError(
            f"{sample.name}: an image of {height}x{width}; expected {out.shape[1]}x"
            f"{out.shape[2]} as in the first record of the batch; set crop_size, resize "
            "all images to one size, or set batch_size to 1, which takes images of any size"
        )
    writer(sample.pixels, sample.mirror, sample.offsets, sample.mean, sample.scale, out)


def _integer(word: np.uint32, high: int) -> int:
    """philox.to_integers of one word, ten times as fast as with an array of one element."""
    return int(word) * high >> 32


def _two_means(name: str) -> ProtoError:
    return ProtoError(
        f"{name}: Cannot specify mean_file and mean_value at the same time; remove one of them"
    )
