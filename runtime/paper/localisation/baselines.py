"""Baselines that do not use the image: a box in its centre, and the box of a training image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_prep import datum as datums
from data_prep.box_database import read_record, stored_size
from data_prep.boxes import Corners
from data_prep.lmdb_io import Reader
from data_prep.philox import integers, stream_of
from runtime.paper.localisation.truth import Truth

_MAX_BOXES = 20_000
"""More training boxes change no printed digit."""
_STREAM = stream_of("localise.random")


def training_boxes(images: Path, boxes: Path) -> Corners:
    """Return the boxes of training images.

    Shapes: result (n,4). Units: fractions of the image's width and height.
    """
    fractions = []
    with Reader(images) as image_reader, Reader(boxes) as box_reader:
        for index in range(min(_MAX_BOXES, len(box_reader))):
            key = f"record {box_reader.key(index)}"
            box, _ = read_record(box_reader.get(index), key)
            height, width = stored_size(datums.parse(image_reader.get(index), key), key)
            fractions.append(box / (width, height, width, height))
    return np.array(fractions)


def centre_boxes(truth: Truth, trained: Corners) -> Corners:
    """Return a box in each image's centre, with the mean width and height of the training boxes.

    Shapes: trained (n,4) in fractions; result (N,4). Units: result in pixels of the files.
    """
    half = (trained[:, 2:] - trained[:, :2]).mean(axis=0) / 2
    return np.concatenate([0.5 - half, 0.5 + half]) * _sizes(truth)


def random_boxes(truth: Truth, trained: Corners, seed: int = 0) -> Corners:
    """Return the box of a random training image for each image, scaled to its size.

    Shapes: trained (n,4) in fractions; result (N,4). Units: result in pixels of the files.
    """
    images = np.arange(len(truth.labels))
    drawn = integers(seed, _STREAM, 0, images, 1, len(trained))[:, 0]
    return np.asarray(trained[drawn] * _sizes(truth))


def _sizes(truth: Truth) -> Corners:
    return np.tile(truth.sizes[:, ::-1], 2)
