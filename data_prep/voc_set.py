"""PASCAL VOC as a data set of images with one class each.

Images that show several classes, or that are difficult for one, are left out; their number is
logged. The splits are `train` and `val`, or `trainval` divided.
"""

from __future__ import annotations

import logging
from pathlib import Path

from data_prep.boxes import Box, read_boxes
from data_prep.data_set import Entry, ListedSet, Split, listed_set
from data_prep.voc import Voc, open_voc
from prototxt_gen.errors import DataError

_LOG = logging.getLogger("verydeep.data")


def open_voc_set(root: Path, split: Split | None = None) -> ListedSet:
    """Open a year of VOC.

    Raises:
        DataError: the lists are missing or damaged, or the classes are incomplete.
    """
    voc = open_voc(root)
    lists = voc.root / "ImageSets" / "Main"
    divided = any(lists.glob("*_train.txt")) and any(lists.glob("*_val.txt"))
    train, classes = _entries(voc, "train" if divided else "trainval")
    val = _entries(voc, "val")[0] if divided else None

    def boxes(name: str) -> list[Box]:
        path = voc.root / "Annotations" / Path(name).with_suffix(".xml").name
        return read_boxes(path) if path.is_file() else []

    return listed_set(voc.root, classes, train, val, split or Split(), boxes)


def _entries(voc: Voc, split: str) -> tuple[list[Entry], list[str]]:
    lists = voc.lists(split)
    labels: dict[str, list[int]] = {}
    for label, entries in enumerate(lists.values()):
        for entry in entries:
            present = labels.setdefault(entry.image, [])
            # A difficult image may show the class.
            if entry.target >= 0:
                present.append(label)
    single = [
        (voc.file(image), present[0]) for image, present in labels.items() if len(present) == 1
    ]
    if not single:
        raise DataError(
            f"{voc.root}: no image of {split} shows exactly one class; expected some; give another "
            "data set"
        )
    if len(single) < len(labels):
        _LOG.warning(
            "%s: %d of %d images of %s show no class or several and are left out",
            voc.root,
            len(labels) - len(single),
            len(labels),
            split,
        )
    return single, list(lists)
