"""Digit scenes: a handwritten digit drawn over a crop of a real photograph, with its box.

All material is part of installed packages: the UCI digits and two photographs of scikit-learn, and
the photographs of scikit-image. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.datum import COLOR, decode
from prototxt_gen.errors import DataError

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

TRAIN, VAL = 0, 1
SHORT_SIDE = (72, 112)
ASPECT = 4.0 / 3.0
INK_SIZE = (0.50, 0.85)
"""Height of the digit divided by the short side of the image."""
OVERHANG = 0.10
"""Part of the digit that may be outside the central square, which is the single test crop."""
VAL_DIGITS = 400
VAL_COLUMNS = 0.35
DIMMING = (0.55, 0.90)
BRIGHTEST = 140.0
"""The highest luma of the photograph under the ink, so that a white sky permits contrast."""
SHADOW = (0.4, 0.8)
CONTRAST = 100.0
"""The least luma, of 255, by which the ink is brighter than its surroundings. If ink could also be
darker, a net of this size would take several times as long to start learning."""
_ENLARGED = 6

_PHOTOGRAPHS = (
    ("skimage.data", "astronaut.png"),
    ("skimage.data", "chelsea.png"),
    ("skimage.data", "coffee.png"),
    ("skimage.data", "rocket.jpg"),
    ("skimage.data", "motorcycle_left.png"),
    ("skimage.data", "camera.png"),
    ("skimage.data", "brick.png"),
    ("skimage.data", "grass.png"),
    ("skimage.data", "gravel.png"),
    ("skimage.data", "hubble_deep_field.jpg"),
    ("sklearn.datasets.images", "china.jpg"),
    ("sklearn.datasets.images", "flower.jpg"),
)


@dataclass(frozen=True)
class Box:
    """Edges in pixels: the ink is in columns xmin to xmax - 1, rows ymin to ymax - 1."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


@dataclass(frozen=True)
class Scene:
    """An image, its class and the tight box of its digit.

    Shapes: image (height, width, 3), BGR.
    """

    image: Bytes
    label: int
    box: Box


@dataclass(frozen=True)
class Sources:
    """The material of one split, without the digits and photograph regions of the other.

    Shapes: sheets (count, 72, 72), ink above about 0.5; each photograph (height, width, 3), BGR.
    """

    sheets: Floats
    labels: npt.NDArray[np.int64]
    photographs: tuple[Bytes, ...]


def split_digits(labels: npt.NDArray[np.int64], split: int) -> npt.NDArray[np.int64]:
    """The indices of the digits of `split`, the same for every seed of the data set."""
    order = np.random.Generator(np.random.PCG64(1797)).permutation(len(labels))
    return np.sort(order[VAL_DIGITS:] if split == TRAIN else order[:VAL_DIGITS])


def split_columns(width: int, index: int, split: int) -> slice:
    """The columns of photograph `index` that belong to `split`.

    Validation has the right part of every other photograph, the left part of the rest, so that
    neither split is all sky or all ground.
    """
    val = round(width * VAL_COLUMNS)
    if index % 2 == 0:
        return slice(0, width - val) if split == TRAIN else slice(width - val, width)
    return slice(val, width) if split == TRAIN else slice(0, val)


def load_sources(split: int) -> Sources:
    """Read the digits and photographs of `split` from the installed packages.

    Raises:
        DataError: a package does not ship one of the photographs.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    labels = np.asarray(bunch.target, np.int64)
    keep = split_digits(labels, split)
    photographs = [
        np.ascontiguousarray(image[:, split_columns(image.shape[1], index, split)])
        for index, image in enumerate(_read_photograph(*source) for source in _PHOTOGRAPHS)
    ]
    digits = np.asarray(bunch.images, np.float32)[keep] / np.float32(16)
    sheets = np.stack([_enlarge(digit) for digit in digits])
    return Sources(sheets, labels[keep], tuple(photographs))


def _read_photograph(package: str, name: str) -> Bytes:
    try:
        data = (importlib.resources.files(package) / name).read_bytes()
    except (OSError, ModuleNotFoundError) as cause:
        root = package.partition(".")[0]
        raise DataError(
            f"{package}/{name}: photograph of the embedded data set is missing; expected it "
            f"inside the installed {root} package; reinstall scikit-image and scikit-learn"
        ) from cause
    try:
        return np.asarray(decode(data, f"{package}/{name}", COLOR), np.uint8)
    except DataError as cause:
        raise DataError(
            f"{package}/{name}: photograph does not decode; expected a PNG or JPEG of "
            f"{len(data)} bytes; reinstall scikit-image and scikit-learn"
        ) from cause


def _enlarge(digit: Floats) -> Floats:
    """Enlarge an 8x8 digit smoothly, with a margin of two of its pixels."""
    side = (8 + 2 * 2) * _ENLARGED
    large = cv2.resize(np.pad(digit, 2), (side, side), interpolation=cv2.INTER_CUBIC)
    large = cv2.GaussianBlur(large, (0, 0), 0.28 * _ENLARGED)
    # Eight pixels leave holes half filled and thin strokes half white: sharpen.
    wide = cv2.GaussianBlur(large, (0, 0), 1.1 * _ENLARGED)
    return np.asarray(3.0 * large - 2.0 * wide, np.float32)


def draw_scene(sources: Sources, label: int, rng: np.random.Generator) -> Scene:
    """Draw a scene with a digit of class `label`; the same `rng` state gives the same scene."""
    canvas = _background(sources, rng)
    height, width = canvas.shape[:2]
    sheet = sources.sheets[rng.choice(np.flatnonzero(sources.labels == label))]
    short = min(height, width)
    ink = _fit(_ink(sheet, rng.uniform(*INK_SIZE) * short, rng), short)
    top = _place(height, short, ink.shape[0], rng)
    left = _place(width, short, ink.shape[1], rng)
    box = Box(left, top, left + ink.shape[1], top + ink.shape[0])
    cover = np.zeros((height, width), np.float32)
    cover[box.ymin : box.ymax, box.xmin : box.xmax] = ink
    return Scene(_paint(canvas, cover, box, rng), label, box)


def _background(sources: Sources, rng: np.random.Generator) -> Floats:
    """Crop a photograph at a random position and scale; resize it to a random size and aspect."""
    short = rng.integers(SHORT_SIDE[0], SHORT_SIDE[1], endpoint=True)
    ratio = ASPECT ** rng.uniform(-1.0, 1.0)
    height = round(short * max(1.0, 1.0 / ratio))
    width = round(short * max(1.0, ratio))
    photograph = sources.photographs[rng.integers(len(sources.photographs))]
    rows, columns = photograph.shape[:2]
    # A crop below two thirds of the image's own size would show the photograph's pixels.
    largest = min(rows / height, columns / width)
    scale = rng.uniform(min(0.67, largest), min(2.5, largest))
    crop_h, crop_w = round(height * scale), round(width * scale)
    top = rng.integers(0, max(0, rows - crop_h), endpoint=True)
    left = rng.integers(0, max(0, columns - crop_w), endpoint=True)
    crop = photograph[top : top + crop_h, left : left + crop_w]
    how = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    resized = cv2.resize(crop, (width, height), interpolation=how)
    if rng.random() < 0.5:
        resized = resized[:, ::-1]
    return np.asarray(resized, np.float32)


def _ink(sheet: Floats, size: float, rng: np.random.Generator) -> Floats:
    """Convert a digit to smooth ink about `size` pixels high, cut to its tight box.

    The digit is turned and slanted a little, and thresholded softly, where the threshold sets the
    width of the pen.
    """
    zoom = size / (8 * _ENLARGED)
    angle = np.deg2rad(rng.uniform(-10.0, 10.0))
    slant = rng.uniform(-0.15, 0.15)
    stretch = zoom * np.exp(rng.uniform(-0.15, 0.15))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[stretch, slant * zoom], [0.0, zoom]])
    side = int(np.ceil(size * 1.6))
    shift = (side - 1) / 2 - linear @ np.full(2, (len(sheet) - 1) / 2)
    warped = cv2.warpAffine(
        sheet, np.column_stack([linear, shift]), (side, side), flags=cv2.INTER_LINEAR
    )
    pen = rng.uniform(0.40, 0.60)
    soft = 0.10
    ink = np.clip((warped - (pen - soft)) / (2 * soft), 0.0, 1.0)
    ink = ink * ink * (3.0 - 2.0 * ink)
    rows = np.flatnonzero(ink.max(axis=1) > 0.5)
    columns = np.flatnonzero(ink.max(axis=0) > 0.5)
    return np.asarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], np.float32)


def _fit(ink: Floats, short: int) -> Floats:
    """Shrink a digit that slant and stretch have made larger than the image, which is rare."""
    excess = max(ink.shape) / short
    if excess <= 1.0:
        return ink
    height, width = (max(1, int(extent / excess)) for extent in ink.shape)
    shrunk = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.float32)


def _place(side: int, short: int, extent: int, rng: np.random.Generator) -> int:
    """Draw the position of a digit of `extent` along an axis: inside the image, near the square."""
    overhang = OVERHANG * extent
    first = max(0.0, (side - short) / 2 - overhang)
    last = min(float(side - extent), (side + short) / 2 + overhang - extent)
    return round(rng.uniform(first, max(first, last)))


def _paint(canvas: Floats, cover: Floats, box: Box, rng: np.random.Generator) -> Bytes:
    """Blend a bright colour over the dimmed `canvas` by `cover`, with a dark soft shadow."""
    blur = cv2.GaussianBlur(cover, (0, 0), max(1.0, (box.ymax - box.ymin) / 12))
    shadow = np.clip(1.2 * blur / blur.max(), 0.0, 1.0) * rng.uniform(*SHADOW)
    area = (slice(box.ymin, box.ymax), slice(box.xmin, box.xmax))
    exposure = min(rng.uniform(*DIMMING), BRIGHTEST / max(1.0, _luma(canvas[area].mean((0, 1)))))
    shaded = canvas * (exposure * (1.0 - shadow))[..., None]
    mean = shaded[area].mean((0, 1))
    colour = _brighter(mean, rng)
    ramp = np.linspace(-1.0, 1.0, canvas.shape[0], dtype=np.float32)[:, None, None]
    ink = np.clip(colour + rng.uniform(-20.0, 20.0) * ramp, 0.0, 255.0)
    mixed = shaded * (1.0 - cover[..., None]) + ink * cover[..., None]
    return np.asarray(np.rint(np.clip(mixed, 0.0, 255.0)), np.uint8)


def _luma(bgr: npt.NDArray[Any]) -> float:
    return float(0.114 * bgr[0] + 0.587 * bgr[1] + 0.299 * bgr[2])


def _brighter(mean: npt.NDArray[Any], rng: np.random.Generator) -> Floats:
    """Draw colours until one is brighter than `mean` by `CONTRAST`, at most 20; keep the best."""
    draws = rng.uniform(0.0, 255.0, (20, 3)).astype(np.float32)
    best = draws[0]
    for draw in draws:
        if _luma(draw) > _luma(best):
            best = draw
        if _luma(best) - _luma(mean) >= CONTRAST:
            break
    return np.asarray(best, np.float32)
