"""From a decoded image to a slice of the input blob: Caffe's DataTransformer and the paper's more.

Caffe: data_transformer.cpp. value = (pixel - mean) * scale; a mean image is read at the uncropped,
unmirrored source position; TEST crops the centre, TRAIN anywhere; mirroring follows `mirror` alone.

Paper: section 3.1. Before the crop the image is rescaled isotropically until its short side is S,
fixed or drawn from [Smin, Smax] for every image; after it, the colours are shifted.

Random numbers: an image owns eight words (see philox). Word 0 draws S, 1 the crop's row, 2 its
column, 3 the mirror, 4 to 7 the three gaussians of the colour shift. Other streams than Caffe's, on
purpose: these do not depend on the order in which images are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from data_prep import philox
from data_prep.colour import ColourShift
from data_prep.datum import COLOR, GRAY, NATIVE, Image
from data_prep.mean_file import read_mean
from data_prep.resize import rescale_short_side
from prototxt_gen import proto
from prototxt_gen.errors import DataError, ProtoError, ShapeError

WORDS = 8
"""Words an image owns."""

Floats = npt.NDArray[np.float32]


class PixelKernel(Protocol):
    """Compiled code that writes a crop; the same numbers as `write_crop`, bit for bit."""

    def __call__(
        self,
        crop: Image,
        mirror: bool,
        offsets: Floats | None,
        mean: Floats | None,
        scale: float,
        out: Floats,
    ) -> None:
        """See `write_crop`."""


@dataclass(frozen=True, eq=False)
class TransformSpec:
    """What to do to every image.

    Units: `mean_values` and `mean_image` (C, H, W) in pixel values, BGR; `short_side` is (Smin,
    Smax) in pixels.
    """

    train: bool = False
    crop_size: int = 0
    mirror: bool = False
    scale: float = 1.0
    mean_values: tuple[float, ...] = ()
    mean_image: Floats | None = None
    mode: str = NATIVE
    short_side: tuple[int, int] | None = None
    colour: ColourShift | None = None
    reduced_decode: bool = False
    """Decode a JPEG at 1/2, 1/4 or 1/8 where that is still no smaller than S: quicker, softer."""
    kernel: PixelKernel | None = None
    """Writes the crops; numpy where there is none."""
    raw: bool = False
    """Write the bytes of the crops, mirrored; mean, shift and scale are left to a device."""

    def __post_init__(self) -> None:
        if self.mean_image is not None and self.mean_values:
            raise ProtoError(
                "transform_param: Cannot specify mean_file and mean_value at the same time; "
                "remove one of them"
            )
        if self.short_side is None:
            return
        low, high = self.short_side
        if not 0 < low <= high:
            raise ProtoError(f"short side: a range of {low} to {high}; expected 0 < Smin <= Smax")
        if low < self.crop_size:
            raise ProtoError(
                f"short side: {low} is smaller than crop_size {self.crop_size}; "
                "expected at least the crop; enlarge S or shrink the crop"
            )

    @classmethod
    def from_param(
        cls, param: proto.Message, phase: int, where: str = "transform_param"
    ) -> TransformSpec:
        """Read a TransformationParameter; the mean file is loaded.

        Raises:
            ProtoError: settings that contradict each other.
            DataError: the mean file cannot be read.
        """
        if param.HasField("mean_file") and len(param.mean_value):
            raise ProtoError(
                f"{where}: Cannot specify mean_file and mean_value at the same time; "
                "remove one of them"
            )
        if param.force_color and param.force_gray:
            raise ProtoError(
                f"{where}: cannot set both force_color and force_gray; remove one of them"
            )
        return cls(
            train=phase == proto.TRAIN,
            crop_size=int(param.crop_size),
            mirror=bool(param.mirror),
            scale=float(param.scale),
            mean_values=tuple(float(value) for value in param.mean_value),
            mean_image=read_mean(param.mean_file) if param.HasField("mean_file") else None,
            mode=COLOR if param.force_color else GRAY if param.force_gray else NATIVE,
        )

    def draw(
        self, seed: int, stream: int, upper: philox.IntLike, lower: philox.IntLike
    ) -> philox.Words:
        """Draw the words of images by the halves of their sample numbers.

        Shapes: upper and lower (n,), result (n, 8).
        """
        return philox.words(seed, stream, upper, lower, WORDS)

    def scale_of(self, words: philox.Words) -> int:
        """The short side S of an image, 0 where the size is left alone.

        Paper: section 4.1 tests a net trained on a range at Q = 0.5 (Smin + Smax).
        """
        if self.short_side is None:
            return 0
        low, high = self.short_side
        if not self.train:
            return (low + high) // 2
        return low + int(philox.to_integers(words[0], high - low + 1))

    def output_shape(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """The shape (C, H, W) an image of this size comes out in."""
        if self.crop_size:
            return channels, self.crop_size, self.crop_size
        if self.short_side is not None:
            raise ProtoError(
                "transform_param: images are rescaled by their short side but not cropped, so they "
                "differ in size; set crop_size"
            )
        return channels, height, width

    def corner(self, height: int, width: int, words: philox.Words) -> tuple[int, int]:
        """The row and column where the crop of a rescaled image of this size begins."""
        spare = height - self.crop_size, width - self.crop_size
        if not self.train:
            return spare[0] // 2, spare[1] // 2
        row, column = philox.to_integers(words[1:3], np.array(spare) + 1).tolist()
        return row, column

    def mirrors(self, words: philox.Words) -> bool:
        """Whether an image's crop is mirrored."""
        return self.mirror and bool(philox.to_integers(words[3], 2))

    def apply(self, image: Image, words: philox.Words, out: Floats, where: str) -> None:
        """Write one image into its slice of the batch.

        Shapes: image (H, W, C) uint8 or float32; words (8,); out (C, h, w), overwritten.

        Raises:
            ShapeError, DataError: the image does not fit the crop, the mean or the batch.
        """
        short_side = self.scale_of(words)
        if short_side:
            image = rescale_short_side(image, short_side, where)
        row, column = self._corner(image, words, out, where)
        height, width = out.shape[1:]
        mirror = self.mirrors(words)
        crop = image[row : row + height, column : column + width]
        offsets = self._offsets(out.shape[0], words, where)
        self._check_mean(image, where)
        mean = self.mean_image
        if mean is not None:
            mean = mean[:, row : row + height, column : column + width]
        write = write_bytes if self.raw else self.kernel or write_crop
        write(crop, mirror, offsets, mean, self.scale, out)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What a batch is made of."""
        return np.dtype(np.uint8 if self.raw else np.float32)

    def offsets(self, words: philox.Words, channels: int, where: str) -> Floats:
        """What is subtracted from the channels of images. Shapes: words (n, 8), result (n, C)."""
        found = [self._offsets(channels, row, where) for row in words]
        return np.array([np.zeros(channels) if row is None else row for row in found], np.float32)

    def _corner(
        self, image: Image, words: philox.Words, out: Floats, where: str
    ) -> tuple[int, int]:
        height, width, channels = image.shape
        if channels != out.shape[0]:
            raise DataError(
                f"{where}: an image of {channels} channels; expected {out.shape[0]} as in the "
                "first record; set force_color (or force_gray) in transform_param"
            )
        spare = height - out.shape[1], width - out.shape[2]
        if not self.crop_size:
            if spare != (0, 0):
                raise ShapeError(
                    f"{where}: an image of {height}x{width}; expected {out.shape[1]}x"
                    f"{out.shape[2]} as in the first record of the batch; set crop_size, resize "
                    "all images to one size, or set batch_size to 1, which takes images of any size"
                )
            return 0, 0
        if min(spare) < 0:
            raise ShapeError(
                f"{where}: an image of {height}x{width}; expected at least crop_size "
                f"{self.crop_size}; rescale the images or shrink the crop"
            )
        return self.corner(height, width, words)

    def _offsets(self, channels: int, words: philox.Words, where: str) -> Floats | None:
        """What is subtracted from each channel: the mean pixel less the colour shift."""
        if len(self.mean_values) not in (0, 1, channels):
            raise ProtoError(
                f"{where}: Specify either 1 mean_value or as many as channels: {channels}; "
                f"got {len(self.mean_values)}"
            )
        if not self.mean_values and self.colour is None:
            return None
        offsets = np.zeros(channels, np.float32)
        if self.mean_values:
            offsets += np.array(self.mean_values, np.float32)
        if self.colour is not None:
            if channels != 3:
                raise DataError(
                    f"{where}: a colour shift on {channels} channels; expected 3 (BGR); "
                    "set force_color, or leave the colour shift out"
                )
            offsets -= self.colour.bgr(philox.to_normal(words[4:8])[:3])
        return offsets

    def _check_mean(self, image: Image, where: str) -> None:
        height, width, channels = image.shape
        if self.mean_image is not None and self.mean_image.shape != (channels, height, width):
            raise ShapeError(
                f"{where}: an image of {channels}x{height}x{width}; expected the size of the mean "
                f"image, {'x'.join(map(str, self.mean_image.shape))}; use mean_value for images of "
                "varying size"
            )


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
    out: Floats,
) -> None:
    """Write the pixels alone, mirrored or not: `out` holds bytes.

    Raises:
        DataError: the crop is not of bytes.
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
        # Interleaved: OpenCV separates the channels several times quicker than strided reading.
        return cv2.split(crop)
    return (crop[:, :, channel] for channel in range(crop.shape[2]))
