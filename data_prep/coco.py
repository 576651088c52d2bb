"""Annotations of COCO as a data set of images with one class each.

    DIR/annotations/instances_train*.json, instances_val*.json   images in DIR/<split>*/
    DIR/train/_annotations.coco.json, DIR/valid/...              images next to the file

Images whose objects are of several classes, or that have none, are left out; their number is
logged. Boxes are those of the annotations.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.boxes import Box
from data_prep.data_set import Entry, ListedSet, Split, listed_set
from data_prep.image_folder import TRAIN_FOLDERS, VAL_FOLDERS
from prototxt_gen.errors import DataError
from prototxt_gen.reading import read_json, short_repr

_MOST_BYTES = 1 << 30
_LOG = logging.getLogger("verydeep.data")


@dataclass(frozen=True)
class _Annotated:
    """One file: the class and the boxes of each image that is used."""

    names: dict[str, str]
    boxes: dict[str, list[Box]]
    left_out: int


def find_coco(folder: Path) -> list[Path]:
    """The annotation files of a folder: that of the training images, and of the held-out ones."""
    found = []
    for names in (TRAIN_FOLDERS, VAL_FOLDERS):
        paths = [
            path
            for name in names
            for pattern in (
                f"annotations/instances_{name}*.json",
                f"annotations/{name}.json",
                f"{name}/_annotations.coco.json",
            )
            for path in sorted(folder.glob(pattern))
        ]
        found += paths[:1]
        if names is TRAIN_FOLDERS and not paths:
            return []
    return found


def open_coco(files: Sequence[Path], split: Split | None = None) -> ListedSet:
    """Open the annotations of training images, and of held-out images if there are any.

    Raises:
        DataError: a file is damaged, an image is missing, or the classes are incomplete.
    """
    base = files[0].parent
    root = base.parent if base.name == "annotations" or len(files) > 1 else base
    parts = _read_all(files, root)
    classes = sorted(set(parts[0].names.values()))
    label_of = {name: label for label, name in enumerate(classes)}
    lists: list[list[Entry]] = []
    for part in parts:
        known = {path: name for path, name in part.names.items() if name in label_of}
        if len(known) < len(part.names):
            missing = len(part.names) - len(known)
            _LOG.warning("%s: %d held-out images of classes without training images", root, missing)
        lists.append([(path, label_of[name]) for path, name in sorted(known.items())])
    boxes = {path: found for part in parts for path, found in part.boxes.items()}
    val = lists[1] if len(lists) > 1 else None
    return listed_set(
        root, classes, lists[0], val, split or Split(), lambda name: boxes.get(name, [])
    )


def _read_all(files: Sequence[Path], root: Path) -> list[_Annotated]:
    parts = [_read(path, root) for path in files]
    left_out = sum(part.left_out for part in parts)
    if left_out:
        _LOG.warning(
            "%s: %d images with no object or with objects of several classes are left out",
            root,
            left_out,
        )
    return parts


def _read(path: Path, root: Path) -> _Annotated:
    try:
        content = read_json(path, _MOST_BYTES, regular=True)
    except (OSError, ValueError) as cause:
        raise DataError(
            f"{path}: cannot be read: {cause}; expected annotations of COCO; unpack it again"
        ) from cause
    images, annotations, categories = (
        _rows(content, key, path) for key in ("images", "annotations", "categories")
    )
    name_of = {_value(row, "id", int, path): _value(row, "name", str, path) for row in categories}
    file_of = {_value(row, "id", int, path): _value(row, "file_name", str, path) for row in images}
    boxes = _boxes(annotations, file_of, name_of, path)
    folder = _image_folder(path, root, next(iter(file_of.values()), ""))
    single = {
        image: found for image, found in boxes.items() if len({box.name for box in found}) == 1
    }
    paths = {image: f"{folder}{file_of[image]}" for image in single}
    return _Annotated(
        {paths[image]: found[0].name for image, found in single.items()},
        {paths[image]: found for image, found in single.items()},
        len(file_of) - len(single),
    )


def _boxes(
    annotations: Sequence[Mapping[str, Any]],
    file_of: Mapping[int, str],
    name_of: Mapping[int, str],
    path: Path,
) -> dict[int, list[Box]]:
    """The boxes of each image, by its id."""
    boxes: dict[int, list[Box]] = {image: [] for image in file_of}
    for row in annotations:
        image, category = (_value(row, key, int, path) for key in ("image_id", "category_id"))
        if image not in boxes or category not in name_of:
            raise DataError(
                f"{path}: an annotation of image {image} and category {category}; expected ids of "
                "`images` and `categories`; unpack the file again"
            )
        boxes[image].append(_box(name_of[category], row.get("bbox"), path))
    return boxes


def _rows(content: Any, key: str, path: Path) -> list[Mapping[str, Any]]:
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"{path}: {key}: expected a list of objects, got {short_repr(rows)}; give the file of "
            "instances"
        )
    return rows


def _value(row: Mapping[str, Any], key: str, kind: type, path: Path) -> Any:
    value = row.get(key)
    if type(value) is not kind or value == "":
        raise DataError(
            f"{path}: {key}: expected {kind.__name__}, got {short_repr(value)}; unpack it again"
        )
    return value


def _box(name: str, corners: Any, path: Path) -> Box:
    valid = isinstance(corners, list) and len(corners) == 4
    if not valid or not all(type(value) in (int, float) for value in corners):
        raise DataError(
            f"{path}: bbox: expected x, y, width and height, got {short_repr(corners)}; unpack it "
            "again"
        )
    left, top, width, height = corners
    return Box(name, left, top, left + max(width, 0), top + max(height, 0))


def _image_folder(path: Path, root: Path, first: str) -> str:
    """The folder of a file's images below the root, with a slash at its end."""
    split = path.stem.removeprefix("instances_")
    for folder in (path.parent, root / "images" / split, root / split, root / "images", root):
        if first and (folder / first).is_file():
            below = folder.relative_to(root).as_posix()
            return "" if below == "." else f"{below}/"
    raise DataError(
        f"{path}: the image {first!r} was not found in {root / split}, {root / 'images'} or next "
        "to the file; expected the images there; unpack them"
    )
