"""A folder of images for each class.

    DIR/<class>/*.jpg                               a part of each class is held out
    DIR/train/<class>/*.jpg, DIR/val/<class>/*.jpg  also valid, validation or test
    DIR/bbox/..., or XML files next to the images   bounding boxes, as in VOC; optional

The names of the classes are those of the folders. Class folders are read with all folders below.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from data_prep.boxes import Box, read_boxes
from data_prep.data_set import Entry, ListedSet, Split, listed_set
from prototxt_gen.errors import DataError

TRAIN_FOLDERS = ("train", "training")
VAL_FOLDERS = ("val", "valid", "validation", "test")
IMAGE_SUFFIXES = frozenset(
    {".jpeg", ".jpg", ".jpe", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)
_NO_CLASSES = frozenset({"bbox", "annotation", "annotations", "__macosx"})
_BOXES = "bbox"


def open_image_folder(root: Path, split: Split | None = None) -> ListedSet:
    """Open a folder of class folders, or of `train` and `val` with class folders.

    Raises:
        DataError: there are fewer than two classes, a class has no images, or the folders of train
            and val differ.
    """
    train = _first_folder(root, TRAIN_FOLDERS)
    val = _first_folder(root, VAL_FOLDERS)
    base = root if train is None else train
    classes = class_folders(base)
    read = _BoxFiles(root).read if _has_boxes(root, base, classes) else None
    if not classes:
        raise DataError(
            f"{base}: no folders of classes; expected <class>/*.jpg; put the images of each class "
            "into a folder of its own"
        )
    names = [folder.name for folder in classes]
    entries = _entries(root, classes)
    held = None if train is None or val is None else _held_out(root, val, names)
    return listed_set(root, names, entries, held, split or Split(), read)


def class_entries(folder: Path) -> list[Entry]:
    """The images of all class folders, by their paths below the folder, sorted by class and name.

    Raises:
        DataError: there are no class folders, or one has no images.
    """
    classes = class_folders(folder)
    if not classes:
        raise DataError(
            f"{folder}: no folders of classes; expected <class>/*.jpg, or a list of images; name "
            "the folder that contains a folder for each class"
        )
    return _entries(folder, classes)


def class_folders(folder: Path) -> list[Path]:
    """The folders of classes, sorted by name; hidden ones and those of boxes are not classes."""
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found if entry.is_dir()]
    except OSError as cause:
        raise DataError(
            f"{folder}: cannot be read: {cause.strerror}; expected a folder; check the path"
        ) from cause
    return [
        folder / name
        for name in sorted(names)
        if name[0] != "." and name.lower() not in _NO_CLASSES
    ]


def _first_folder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _entries(root: Path, classes: Sequence[Path]) -> list[Entry]:
    entries = []
    for label, folder in enumerate(classes):
        names = _images(folder)
        if not names:
            raise DataError(
                f"{folder}: no images; expected files such as *.jpg; add images of this class, or "
                "remove the folder"
            )
        below = folder.relative_to(root).as_posix()
        entries += [(f"{below}/{name}", label) for name in names]
    return entries


def _held_out(root: Path, val: Path, names: Sequence[str]) -> list[Entry]:
    label_of = {name: label for label, name in enumerate(names)}
    entries = []
    for folder in class_folders(val):
        if folder.name not in label_of:
            raise DataError(
                f"{folder}: no class of the training images; expected one of "
                f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}; rename the folder, or "
                "add training images of this class"
            )
        below = folder.relative_to(root).as_posix()
        entries += [(f"{below}/{name}", label_of[folder.name]) for name in _images(folder)]
    return entries


def _images(folder: Path) -> list[str]:
    """The images of a class by their paths below its folder."""
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        names += [
            prefix + name
            for name in files
            if name[0] != "." and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
        ]
    return sorted(names)


def _has_boxes(root: Path, base: Path, classes: Sequence[Path]) -> bool:
    if (root / _BOXES).is_dir():
        return True
    return any(next(folder.glob("*.xml"), None) is not None for folder in classes)


class _BoxFiles:
    """The XML files of boxes: below `bbox`, or next to the images."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> list[Box]:
        """The boxes of an image; empty if it has no file."""
        image = Path(name).with_suffix(".xml")
        for path in (self.root / _BOXES / image, self.root / image):
            if path.is_file():
                return read_boxes(path)
        return []
