"""Creates databases, mean pixel and colour components from a folder of images. Paper: 3.1."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path

from data_prep.colour import write_pca
from data_prep.convert_imageset import ConvertOptions, convert
from data_prep.data_set import DataSet, Entry, Split
from data_prep.demo import TRAIN_IMAGES, VAL_IMAGES, make_demo
from data_prep.image_mean import compute_image_mean
from data_prep.lmdb_io import Reader
from data_prep.open_data_set import open_data_set
from data_prep.progress import show_progress
from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.reading import read_json, short_repr

log = logging.getLogger("verydeep.job")

DEMO = "demo"
DEMO_IMAGES = (TRAIN_IMAGES, VAL_IMAGES)


@dataclass(frozen=True)
class Prepared:
    """The inputs of training and evaluation.

    Units: mean_pixel in 0-255, BGR.
    """

    root: Path
    train: Path
    val: Path
    pca: Path
    mean_pixel: tuple[float, float, float]
    train_images: int
    val_images: int
    synsets: tuple[str, ...]


def prepare(
    data: str,
    out: Path,
    short_side: int,
    jobs: int | None = None,
    demo_images: tuple[int, int] = DEMO_IMAGES,
    classes: int | None = None,
    seed: int = 0,
    split: Split | None = None,
) -> Prepared:
    """Create the databases of a data set, unless they are complete.

    Args:
        data: "demo" for the embedded data set, else the path of one.
        out: the folder of the databases; incomplete ones are continued.
        short_side: images with a larger short side are rescaled to it before they are stored.
        jobs: the number of threads; None for the number of cores.
        demo_images: the numbers of training and held-out images of the embedded data set.
        classes: use only the first classes; None for all.
        seed: the seed of the embedded data set.
        split: how images are held out if the data set does not do so.

    Raises:
        DataError: the data set is incomplete, or the disk is full; written records are kept.
    """
    root = _demo(out, demo_images, seed) if data == DEMO else Path(data)
    opened = open_data_set(root, split)
    synsets = opened.synsets[:classes]
    lists = {
        split: [entry for entry in entries if entry[1] < len(synsets)]
        for split, entries in (("train", opened.train_list()), ("val", opened.val_list()))
    }
    train, val = (
        make_database(out / f"{split}_lmdb", opened, entries, short_side, jobs, split == "train")
        for split, entries in lists.items()
    )
    pca = out / "train_pca.json"
    mean = _mean(train, out / "train_mean.json", pca)
    with Reader(train) as first, Reader(val) as second:
        counts = len(first), len(second)
    names = tuple(f"{s.wnid} {s.words}".strip() for s in synsets)
    atomic_write_text(out / "synset_words.txt", "\n".join(names) + "\n", DataError)
    return Prepared(opened.root, train, val, pca, mean, *counts, names)


def _demo(out: Path, images: tuple[int, int], seed: int) -> Path:
    with show_progress("drawing the embedded data set") as progress:
        made = make_demo(out / "images", *images, seed, progress=progress)
    log.info(
        "Embedded data set: %d training and %d held-out images in %s%s",
        made.train_images,
        made.val_images,
        made.root,
        " (found complete)" if made.reused else "",
    )
    return made.root


def make_database(
    path: Path,
    opened: DataSet,
    entries: list[Entry],
    short_side: int,
    jobs: int | None,
    shuffle: bool,
) -> Path:
    """Convert a list of images, unless a note in the database's folder marks it as complete."""
    settings = {"images": len(entries), "short_side": short_side, "root": str(opened.root)}
    note = path.with_suffix(".json")
    if note.is_file() and _noted(note) == settings:
        log.info("%s: found complete (%d images)", path, len(entries))
        return path
    options = ConvertOptions(
        short_side=short_side,
        shrink_only=True,
        encoded=True,
        shuffle=shuffle,
        jobs=jobs,
        resume=path.exists(),
        on_error="skip",
        resuming="the same command",
    )
    with show_progress(f"converting {path.name}") as progress:
        result = convert(opened.root, entries, path, options, progress)
    log.info(
        "%s: %d images, %d of them found from an earlier start, %d skipped",
        path,
        result.records,
        result.resumed_at,
        len(result.skipped),
    )
    atomic_write_text(note, json.dumps(settings, indent=2) + "\n", DataError)
    return path


def _noted(note: Path) -> object:
    try:
        return read_json(note, regular=True)
    except (OSError, ValueError) as cause:
        raise DataError(
            f"{note}: cannot be read: {cause}; delete it to convert the images again"
        ) from cause


def _noted_mean(note: Path) -> list[float]:
    content = _noted(note)
    values = content.get("mean_pixel") if isinstance(content, dict) else None
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(type(value) in (int, float) and math.isfinite(value) for value in values)
    ):
        raise DataError(
            f"{note}: has no mean; expected three numbers as 'mean_pixel', got "
            f"{short_repr(values)}; delete it to compute the mean again"
        )
    return [float(value) for value in values]


def _mean(database: Path, note: Path, pca: Path) -> tuple[float, float, float]:
    """The mean pixel of the training images; computed once, with the colour components."""
    if note.is_file() and pca.is_file():
        values = _noted_mean(note)
    else:
        with Reader(database) as reader, show_progress("computing the mean") as progress:
            mean = compute_image_mean(reader, progress=progress)
        write_pca(pca, mean.pca(), images=mean.records)
        values = [round(float(v), 3) for v in mean.pixel]
        content = {"mean_pixel": values, "order": "BGR", "images": mean.records}
        atomic_write_text(note, json.dumps(content, indent=2) + "\n", DataError)
    log.info("Mean pixel (BGR): %s", ", ".join(f"{v:g}" for v in values))
    blue, green, red = values
    return blue, green, red
