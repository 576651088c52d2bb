"""The databases of images and boxes that localisation trains on."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_prep.box_database import with_boxes, write_boxes
from data_prep.ilsvrc import Ilsvrc, open_ilsvrc
from data_prep.progress import show_progress
from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.reading import read_json
from runtime.job.prepare import Prepared, make_database

log = logging.getLogger("verydeep.localise")


@dataclass(frozen=True)
class BoxData:
    """Images that have boxes, and their boxes, record beside record."""

    train: Path
    train_boxes: Path
    val: Path
    val_boxes: Path


def prepare_boxes(
    data: Prepared, folder: Path, short_side: int, jobs: int | None = None
) -> BoxData:
    """Make (or find complete) the databases of boxes; images without one are left out.

    Where every image has a box, the images are the classification's own database.

    Raises:
        DataError: there are no boxes, or the disk is full.
    """
    opened = open_ilsvrc(data.root)
    images, boxes = {}, {}
    for split, database in (("train", data.train), ("val", data.val)):
        entries = opened.train_list() if split == "train" else opened.val_list()
        what = "training" if split == "train" else "held-out"
        kept = with_boxes(opened, entries, what)
        images[split] = database
        if len(kept) < len(entries):
            images[split] = folder / f"boxed_{split}_lmdb"
            shuffle = split == "train"
            make_database(images[split], opened, kept, short_side, jobs, shuffle)
        boxes[split] = folder / f"{split}_box_lmdb"
        _write(images[split], opened, boxes[split])
    return BoxData(images["train"], boxes["train"], images["val"], boxes["val"])


def require_boxes(root: Path) -> None:
    """See that a data set has boxes at all, before its images are converted for hours.

    Raises:
        DataError: it has no folder of them.
    """
    opened = open_ilsvrc(root)
    for entries in (opened.train_list(), opened.val_list()):
        opened.boxes_path(entries[0][0])


def find_boxes(folder: Path) -> tuple[Path, Path]:
    """The databases of training images and boxes that were prepared in a folder.

    Raises:
        DataError: they are not there.
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


def _write(images: Path, opened: Ilsvrc, database: Path) -> None:
    """Write a database of boxes, unless a note beside it says that it is done."""
    status = (images / "data.mdb").stat()
    wanted = {"images": images.name, "bytes": status.st_size, "written": status.st_mtime_ns}
    note = database.with_suffix(".json")
    if note.is_file() and database.is_dir() and _noted(note) == wanted:
        log.info("%s: found complete", database)
        return
    # Boxes are read in moments: what was begun, or belongs to other images, is made anew.
    shutil.rmtree(database, ignore_errors=True)
    with show_progress(f"writing {database.name}") as progress:
        count = write_boxes(images, opened, database, progress)
    atomic_write_text(note, json.dumps(wanted, indent=2) + "\n", DataError)
    log.info("%s: the boxes of %d images", database, count)


def _noted(note: Path) -> object:
    try:
        return read_json(note)
    except (OSError, ValueError):
        return None
