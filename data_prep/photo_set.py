"""A small data set of five classes: crops of photographs of scikit-image, made without a network.

    DIR/train/<class>/<n>.jpg, DIR/val/<class>/<n>.jpg

Each class is one photograph. Held-out crops are of a part of it of which no training crop is.
"""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.datum import COLOR, decode
from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write

CLASSES = {
    "bricks": "brick.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "text": "page.png",
}
TRAIN_IMAGES, VAL_IMAGES = 30, 10
"""The images of each class."""
_VAL_COLUMNS = 0.35
_SIDE = (90, 150)
"""The sides of crops in pixels."""
_STORED = 96
_QUALITY = 92

Pixels = npt.NDArray[np.uint8]


def write_photo_set(
    root: str | os.PathLike[str],
    train: int = TRAIN_IMAGES,
    val: int = VAL_IMAGES,
    seed: int = 0,
) -> Path:
    """Write the data set into a folder that is absent or empty; returns the folder.

    Raises:
        DataError: the folder has other content or cannot be written, a number is below 1, or a
            photograph is not installed.
    """
    folder = Path(root)
    if min(train, val) < 1:
        raise DataError(f"photographs: {train} and {val} images a class; expected at least 1 each")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder}: is not an empty folder; expected an absent or empty one; choose another"
        )
    for label, (name, file) in enumerate(CLASSES.items()):
        photograph = _photograph(file)
        edge = round(photograph.shape[1] * (1 - _VAL_COLUMNS))
        for split, part, count in (
            ("train", photograph[:, :edge], train),
            ("val", photograph[:, edge:], val),
        ):
            rng = np.random.Generator(np.random.PCG64([seed, label, split == "val"]))
            for number in range(count):
                _write(folder / split / name / f"{number:03d}.jpg", _crop(part, rng))
    return folder


def _photograph(file: str) -> Pixels:
    try:
        data = importlib.resources.files("skimage.data").joinpath(file).read_bytes()
    except (OSError, ModuleNotFoundError) as cause:
        raise DataError(
            f"scikit-image: no photograph {file}: {cause}; expected the installed package; "
            "reinstall scikit-image"
        ) from cause
    return np.asarray(decode(data, file, COLOR))


def _crop(part: Pixels, rng: np.random.Generator) -> Pixels:
    """A square crop of random place and size, resized to the stored side, perhaps mirrored."""
    side = int(rng.integers(_SIDE[0], min(_SIDE[1], *part.shape[:2]) + 1))
    top, left = (int(rng.integers(0, size - side + 1)) for size in part.shape[:2])
    crop = part[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    resized = cv2.resize(crop, (_STORED, _STORED), interpolation=cv2.INTER_AREA)
    return np.asarray(resized)


def _write(path: Path, image: Pixels) -> None:
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise DataError(f"{path}: image does not encode as JPEG; reinstall opencv-python")
    with atomic_write(path, "wb", DataError, durable=False) as stream:
        stream.write(data.tobytes())
