"""What is right without looking at the image: a box in its centre, and another image's box."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_prep import datum as datums
from data_prep.box_database import read_record, stored_size
from data_prep.boxes import Corners
from data_prep.lmdb_io import Reader
from data_prep.philox import integers, stream_of
from runtime.paper.localisation.truth import Truth

_MOST = 20_000
"""Training boxes looked at: more change no digit that is printed."""
_STREAM = stream_of("localise.random")


def training_boxes(images: Path, boxes: Path) -> Corners:
    """Training boxes as fractions of their images' width and height. Shape (n,4)."""
    found = []
    with Reader(images) as image_reader, Reader(boxes) as box_reader:
        for index in range(min(_MOST, len(box_reader))):
            where = f"record {box_reader.key(index)}"
            box, _ = read_record(box_reader.get(index), where)
            height, width = stored_size(datums.parse(image_reader.get(index), where), where)
            found.append(box / (width, height, width, height))
    return np.array(found)


def centre_boxes(truth: Truth, trained: Corners) -> Corners:
    """In each image's centre a box of the training boxes' mean width and height. Shape (N,4)."""
    half = (trained[:, 2:] - trained[:, :2]).mean(axis=0) / 2
    return np.concatenate([0.5 - half, 0.5 + half]) * _sizes(truth)


def random_boxes(truth: Truth, trained: Corners, seed: int = 0) -> Corners:
    """For each image the box of some training image, relative to its size. Shape (N,4)."""
    places = np.arange(len(truth.labels))
    drawn = integers(seed, _STREAM, 0, places, 1, len(trained))[:, 0]
    return np.asarray(trained[drawn] * _sizes(truth))


def _sizes(truth: Truth) -> Corners:
    return np.tile(truth.sizes[:, ::-1], 2)
