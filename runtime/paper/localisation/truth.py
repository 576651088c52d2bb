"""The images that boxes are judged on: what is true of them, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.box_database import class_boxes, file_size, with_boxes
from data_prep.boxes import Corners, corners_of
from data_prep.ilsvrc import Entry, Ilsvrc, open_ilsvrc
from prototxt_gen.errors import DataError
from runtime.evaluate.image_source import ImageFiles


@dataclass(frozen=True, eq=False)
class Truth:
    """Held-out images with the boxes of their class, in pixels of the files.

    Shapes: labels (N,), sizes (N,2) of (H,W), each of `boxes` (n,4).
    """

    root: Path
    entries: tuple[Entry, ...]
    labels: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.float64]
    boxes: tuple[Corners, ...]
    names: tuple[str, ...]
    """What the classes are called."""

    @property
    def images(self) -> ImageFiles:
        """The images as records."""
        return ImageFiles(self.root, self.entries)


def read_truth(root: Path, count: int | None = None) -> Truth:
    """The first `count` held-out images that have boxes, or all.

    Raises:
        DataError: the data set has no boxes, or fewer images than asked for.
    """
    opened = open_ilsvrc(root)
    return truth_of(opened, with_boxes(opened, opened.val_list(), "held-out"), count)


def truth_of(opened: Ilsvrc, entries: Sequence[Entry], count: int | None = None) -> Truth:
    """What is true of the first `count` images of a list that have boxes, or of all."""
    count = len(entries) if count is None else count
    if not 1 <= count <= len(entries):
        raise DataError(
            f"{opened.root}: {len(entries)} images with boxes; expected to use from 1 to all of "
            f"them, got {count}; correct --images"
        )
    used = tuple(entries[:count])
    return Truth(
        opened.root,
        used,
        np.array([label for _, label in used], np.int64),
        np.array([file_size(opened.root / name) for name, _ in used], np.float64),
        tuple(corners_of(class_boxes(opened, entry)) for entry in used),
        tuple(synset.words or synset.wnid for synset in opened.synsets),
    )
