"""Small images and databases, made anew for every test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep import datum
from data_prep.lmdb_io import Writer


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colour image, which JPEG keeps nearly as it is."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def jpeg(image: np.ndarray) -> bytes:
    return datum.encode(image, "jpg", 95, "test")


@pytest.fixture
def make_db(tmp_path: Path) -> Callable[..., Path]:
    """Write a database of the given serialised Datums or images; labels count up."""

    def make(items: Sequence[bytes | np.ndarray], name: str = "db", encoded: bool = True) -> Path:
        with Writer(tmp_path / name) as writer:
            for number, item in enumerate(items):
                value = item if isinstance(item, bytes) else record(item, number, encoded)
                writer.put(f"{number:08d}_image{number}.jpg".encode(), value)
        return tmp_path / name

    return make


def record(image: np.ndarray, label: int, encoded: bool = True) -> bytes:
    """A serialised Datum of an image (H, W, C)."""
    if encoded:
        return bytes(datum.from_encoded(jpeg(image), label).SerializeToString())
    return bytes(datum.from_array(image.transpose(2, 0, 1), label).SerializeToString())
