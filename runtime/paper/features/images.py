"""The images whose features are extracted: whole images, or the insides of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep import datum as datums
from data_prep.boxes import Box
from data_prep.caltech import FOLDERS, open_caltech
from data_prep.ilsvrc import is_ilsvrc
from data_prep.image_files import ImageFiles
from data_prep.open_data_set import is_data_set, open_data_set
from data_prep.voc import ACTION, MAIN, Voc, open_voc
from prototxt_gen.errors import DataError, ProtoError
from runtime.evaluate.image_source import open_source
from runtime.paper.features.extraction import BOXES, IMAGES, ImageSet

SPLITS = ("train", "val", "trainval", "test")
VOC, CALTECH, FOLDER, RECORDS = "voc", "caltech", "folder", "records"
LAYOUTS = (VOC, CALTECH, FOLDER, RECORDS)


def region_name(image: str, person: int) -> str:
    """Return the name of a box: its image and its number in the annotation, from 1."""
    return f"{image}#{person}"


@dataclass(frozen=True)
class BoxImages:
    """The insides of boxes, as a source of records.

    Units: boxes are VOC's: pixels from 1, xmax and ymax inclusive.
    """

    files: ImageFiles
    boxes: Sequence[tuple[int, Box]]
    """For each file: the number of a box in its annotation, and the box."""

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.boxes)

    def key(self, index: int) -> str:
        """Return the name of a record's box."""
        return region_name(self.files.key(index), self.boxes[index][0])

    def get(self, index: int) -> bytes:
        """Read the inside of a box as a serialised raw Datum.

        Raises:
            DataError: the file cannot be read, or the box is outside the image.
        """
        key = self.key(index)
        box = self.boxes[index][1]
        message = datums.parse(self.files.get(index), key)
        image = datums.image_of(message, key, datums.COLOR)
        height, width = image.shape[:2]
        top, left = max(0, round(box.ymin) - 1), max(0, round(box.xmin) - 1)
        inside = image[top : round(box.ymax), left : round(box.xmax)]
        if not inside.size:
            raise DataError(
                f"{key}: a box from ({box.xmin:g}, {box.ymin:g}) to ({box.xmax:g}, {box.ymax:g}) "
                f"in an image of {height}x{width}; expected a box inside the image; unpack the "
                "annotations again"
            )
        datum = datums.from_array(np.ascontiguousarray(inside.transpose(2, 0, 1)), 0)
        return bytes(datum.SerializeToString())


def layout_of(root: Path) -> str:
    """Return the layout of a folder, detected by its content."""
    if any(any(root.glob(f"{above}JPEGImages")) for above in ("", "VOC2*/", "VOCdevkit/VOC2*/")):
        return VOC
    named = any(any(root.glob(above + name)) for name in FOLDERS for above in ("", "*/"))
    if named or root.name in FOLDERS:
        return CALTECH
    return FOLDER if is_data_set(root) and not is_ilsvrc(root) else RECORDS


def open_images(
    root: Path, layout: str | None = None, kind: str = MAIN, boxes: bool = False
) -> ImageSet:
    """Open the images of a data set: those of VOC's lists, or all images or records.

    Raises:
        DataError: the data is missing or incomplete.
        ProtoError: `boxes` for data without lists of boxes.
    """
    layout = layout or layout_of(root)
    if boxes and layout != VOC:
        raise ProtoError(
            f"{root}: --boxes: expected PASCAL VOC with boxes of people in ImageSets/Action, got "
            f"{layout}; omit the flag"
        )
    if layout == VOC:
        return _voc_images(open_voc(root), ACTION if boxes else kind, boxes)
    if layout == CALTECH:
        data = open_caltech(root)
        names = [name for files in data.images.values() for name in files]
        return ImageSet(ImageFiles(data.root, [(name, 0) for name in names]), str(data.root))
    if layout == FOLDER:
        opened = open_data_set(root)
        entries = [*opened.train_list(), *opened.val_list()]
        return ImageSet(ImageFiles(opened.root, entries), str(root))
    return ImageSet(open_source(root), str(root))


def _voc_images(voc: Voc, kind: str, boxes: bool) -> ImageSet:
    """Return the images or boxes in the lists of all splits, each once."""
    splits = [
        split for split in SPLITS if list((voc.root / "ImageSets" / kind).glob(f"*_{split}.txt"))
    ]
    regions: dict[tuple[str, int], None] = {}
    for split in splits or SPLITS[:1]:
        lists = voc.lists(split, kind)
        for entry in next(iter(lists.values())):
            regions[entry.image, entry.person if boxes else 0] = None
    entries = [(voc.file(image), 0) for image, _ in regions]
    files = ImageFiles(voc.root, entries)
    if not boxes:
        return ImageSet(files, str(voc.root), IMAGES)
    numbered = [(person, voc.box(image, person)) for image, person in regions]
    return ImageSet(BoxImages(files, numbered), str(voc.root), BOXES)
