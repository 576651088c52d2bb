"""Opens a data set of images with classes in any of its layouts.

ILSVRC-2012's layout, a folder for each class, a CSV file, annotations of COCO, or PASCAL VOC.
"""

from __future__ import annotations

from pathlib import Path

from data_prep.coco import find_coco, open_coco
from data_prep.data_set import DataSet, Split
from data_prep.ilsvrc import is_ilsvrc, open_ilsvrc
from data_prep.image_csv import SUFFIXES, find_csv, open_image_csv
from data_prep.image_folder import class_folders, open_image_folder
from data_prep.voc import find_voc
from data_prep.voc_set import open_voc_set
from prototxt_gen.errors import DataError

LAYOUTS = (
    "ILSVRC-2012's layout, a folder for each class, a CSV file of paths and labels, annotations of "
    "COCO, or PASCAL VOC"
)
_DATABASE = "data.mdb"
_JSON = ".json"


def is_data_set(path: str | Path) -> bool:
    """Whether a path is a data set of images rather than a database or nothing."""
    place = Path(path)
    if place.is_file():
        return place.suffix.lower() in (*SUFFIXES, _JSON)
    return place.is_dir() and not (place / _DATABASE).is_file()


def open_data_set(path: str | Path, split: Split | None = None) -> DataSet:
    """Open a data set; `split` holds out images where the data set does not.

    Raises:
        DataError: the path is no data set, or the data set is incomplete.
    """
    root = Path(path)
    if root.is_file():
        if root.suffix.lower() in SUFFIXES:
            return open_image_csv([root], split)
        if root.suffix.lower() == _JSON:
            return open_coco([root], split)
    if not root.is_dir():
        raise DataError(f"{root}: no such data set; expected {LAYOUTS}; check the path")
    if find_voc(root):
        return open_voc_set(root, split)
    coco = find_coco(root)
    if coco:
        return open_coco(coco, split)
    files = find_csv(root)
    if files:
        return open_image_csv(files, split)
    if is_ilsvrc(root):
        return open_ilsvrc(root)
    if not class_folders(root):
        raise DataError(f"{root}: no data set; expected {LAYOUTS}; check the path")
    return open_image_folder(root, split)
