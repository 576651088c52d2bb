"""The databases of images and boxes for training localisation nets."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_prep.box_database import with_boxes, write_boxes
from data_prep.data_set import DataSet
from data_prep.open_data_set import open_data_set
from data_prep.progress import show_progress
from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.reading import read_json
from runtime.job.prepare import Prepared, make_database

log = logging.getLogger("verydeep.localise")


@dataclass(frozen=True)
class BoxData:
    """Databases of images that have boxes, and of their boxes, with the same keys and order."""

    train: Path
    train_boxes: Path
    val: Path
    val_boxes: Path


def prepare_boxes(
    data: Prepared, folder: Path, short_side: int, jobs: int | None = None
) -> BoxData:
    """Make the databases of boxes, unless they are complete; images without a box are omitted.

    If every image has a box, the databases of images are those of classification.

    Units: `short_side` of stored images in pixels.

    Raises:
        DataError: there are no boxes, or the disk is full.
    """
    opened = open_data_set(data.root)
    images, boxes = {}, {}
    for split, database in (("train", data.train), ("val", data.val)):
        entries = opened.train_list() if split == "train" else opened.val_list()
        kept = with_boxes(opened, entries, "training" if split == "train" else "held-out")
        images[split] = database
        if len(kept) < len(entries):
            images[split] = folder / f"boxed_{split}_lmdb"
            shuffle = split == "train"
            make_database(images[split], opened, kept, short_side, jobs, shuffle)
        boxes[split] = folder / f"{split}_box_lmdb"
        _write(images[split], opened, boxes[split])
    return BoxData(images["train"], boxes["train"], images["val"], boxes["val"])


def require_boxes(root: Path) -> None:
    """Check that a data set has boxes, before its images are converted.

    Raises:
        DataError: it has no folder of boxes.
    """
    opened = open_data_set(root)
    for entries in (opened.train_list(), opened.val_list()):
        opened.boxes(entries[0][0])


def find_boxes(folder: Path) -> tuple[Path, Path]:
    """Return the databases of training images and of their boxes in a folder.

    Raises:
        DataError: a database is missing.
    """
    own = folder / "boxed_train_lmdb"
    images, boxes = own if own.is_dir() else folder / "train_lmdb", folder / "train_box_lmdb"
    for path in (images, boxes):
        if not path.is_dir():
            raise DataError(
                f"{path}: no such database; expected what `verydeep localise train` prepares; run "
                "it first with the same --out"
            )
    return images, boxes


def _write(images: Path, opened: DataSet, database: Path) -> None:
    """Write a database of boxes, unless its note shows that it is complete."""
    status = (images / "data.mdb").stat()
    expected = {"images": images.name, "bytes": status.st_size, "written": status.st_mtime_ns}
    note = database.with_suffix(".json")
    if note.is_file() and database.is_dir() and _read_note(note) == expected:
        log.info("%s: already complete", database)
        return
    # Writing takes seconds: a database that is incomplete, or of other images, is rewritten.
    shutil.rmtree(database, ignore_errors=True)
    with show_progress(f"writing {database.name}") as progress:
        count = write_boxes(images, opened, database, progress)
    atomic_write_text(note, json.dumps(expected, indent=2) + "\n", DataError)
    log.info("%s: the boxes of %d images", database, count)


def _read_note(note: Path) -> object:
    try:
        return read_json(note)
    except (OSError, ValueError):
        return None
