"""The images on which boxes are evaluated, with their true boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.box_database import class_boxes, file_size, with_boxes
from data_prep.boxes import Corners, corners_of
from data_prep.data_set import DataSet, Entry, class_names
from data_prep.image_files import ImageFiles
from data_prep.open_data_set import open_data_set
from prototxt_gen.errors import DataError


@dataclass(frozen=True, eq=False)
class Truth:
    """Held-out images with the boxes of their class.

    Shapes: labels (N,), sizes (N,2) as (H,W), each of `boxes` (n,4). Units: pixels of the files.
    """

    root: Path
    entries: tuple[Entry, ...]
    labels: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.float64]
    boxes: tuple[Corners, ...]
    names: tuple[str, ...]
    """The names of the classes."""

    @property
    def images(self) -> ImageFiles:
        """The images as a source of records."""
        return ImageFiles(self.root, self.entries)


def read_truth(root: Path, count: int | None = None) -> Truth:
    """Read the first `count` held-out images that have boxes, or all.

    Raises:
        DataError: the data set has no boxes, or fewer than `count` images.
    """
    opened = open_data_set(root)
    return truth_of(opened, with_boxes(opened, opened.val_list(), "held-out"), count)


def truth_of(opened: DataSet, entries: Sequence[Entry], count: int | None = None) -> Truth:
    """Read the boxes of the first `count` images of a list, or of all.

    Raises:
        DataError: there are fewer than `count` images, or a box file cannot be read.
    """
    count = len(entries) if count is None else count
    if not 1 <= count <= len(entries):
        raise DataError(
            f"{opened.root}: {len(entries)} images with boxes; expected a number from 1 to "
            f"{len(entries)}, got {count}; change --images"
        )
    chosen = tuple(entries[:count])
    return Truth(
        opened.root,
        chosen,
        np.array([label for _, label in chosen], np.int64),
        np.array([file_size(opened.root / name) for name, _ in chosen], np.float64),
        tuple(corners_of(class_boxes(opened, entry)) for entry in chosen),
        class_names(opened),
    )
