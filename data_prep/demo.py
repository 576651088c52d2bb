"""The embedded data set: digit scenes in the layout of ILSVRC-2012, made without a network.

train/<wnid>/<wnid>_<n>.JPEG     val/ILSVRC2012_val_<n>.JPEG
bbox/train/<wnid>/*.xml          bbox/val/*.xml
val.txt                          name and label, as lists of Caffe
synset_words.txt                 wnid and words; the line number is the label
ILSVRC2012_validation_ground_truth.txt   as in the development kit: labels from 1, in order
demo.json                        the marker: version, seed, counts
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.demo_scene import TRAIN, VAL, Scene, Sources, draw_scene, load_sources
from data_prep.progress import Progress
from prototxt_gen.errors import DataError
from prototxt_gen.files import remove_abandoned, temporary_folder
from prototxt_gen.reading import read_json

VERSION = 1
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WNIDS = tuple(f"n{label:08d}" for label in range(len(WORDS)))
TRAIN_IMAGES = 6000
VAL_IMAGES = 1000
MARKER = "demo.json"
JPEG_QUALITY = 92
_CHUNK = 64
_REPLACED = ".old"


@dataclass(frozen=True)
class DemoSet:
    """The paths of a complete data set, and its numbers of images.

    `val_list` has lines `name label`.
    """

    root: Path
    seed: int
    train_images: int
    val_images: int
    reused: bool

    @property
    def train(self) -> Path:
        return self.root / "train"

    @property
    def val(self) -> Path:
        return self.root / "val"

    @property
    def val_list(self) -> Path:
        return self.root / "val.txt"

    @property
    def synset_words(self) -> Path:
        return self.root / "synset_words.txt"

    @property
    def train_boxes(self) -> Path:
        return self.root / "bbox" / "train"

    @property
    def val_boxes(self) -> Path:
        return self.root / "bbox" / "val"


def make_demo(
    out_dir: str | os.PathLike[str],
    train: int = TRAIN_IMAGES,
    val: int = VAL_IMAGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> DemoSet:
    """Make the data set in `out_dir`, or reuse the one of the same version, seed and counts.

    It is built in a folder next to `out_dir` and renamed when complete, so `out_dir` is never
    incomplete. The same arguments and library versions give the same bytes.

    Raises:
        DataError: the counts do not fit the classes, `out_dir` has other content, the disk is full
            or read-only, or an installed package lacks a photograph.
    """
    root = Path(out_dir)
    for name, count in (("train", train), ("val", val)):
        if count < len(WORDS):
            raise DataError(
                f"make_demo: too few {name} images; expected at least {len(WORDS)}, one a class, "
                f"got {count}; raise `{name}`"
            )
    marker = {"version": VERSION, "seed": seed, "train": train, "val": val}
    result = DemoSet(root, seed, train, val, reused=False)
    if _marker(root) == marker:
        return DemoSet(root, seed, train, val, reused=True)
    _refuse_foreign(root)
    sources = {split: load_sources(split) for split in (TRAIN, VAL)}
    with _replacing(root) as work:
        _write_lists(work, val)
        _write_images(work, sources, {TRAIN: train, VAL: val}, seed, progress)
        (work / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    return result


def _marker(root: Path) -> dict[str, int] | None:
    try:
        marker = read_json(root / MARKER)
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _refuse_foreign(root: Path) -> None:
    if not root.exists() or _marker(root) is not None:
        return
    if not root.is_dir() or any(root.iterdir()):
        raise DataError(
            f"{root}: holds something that is not the embedded data set; expected it to be absent, "
            f"an empty folder or one with {MARKER}; choose another folder or empty this one"
        )


@contextlib.contextmanager
def _replacing(root: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `root` if the block succeeds."""
    root = Path(os.path.realpath(root))
    try:
        with temporary_folder(root) as work:
            remove_abandoned(root.parent, re.escape(root.name), _REPLACED)
            yield work
            _rename_over(work, root)
    except OSError as cause:
        raise DataError(
            f"{root}: the data set cannot be written: {cause.strerror or cause}; "
            "free some space or choose a folder you may write to; nothing was replaced"
        ) from cause


def _rename_over(work: Path, root: Path) -> None:
    """Rename a folder to `root`; an existing one is renamed first, because it may not be empty."""
    if not root.exists():
        work.rename(root)
        return
    old = work.with_suffix(_REPLACED)
    root.rename(old)
    try:
        work.rename(root)
    except OSError:
        old.rename(root)
        raise
    shutil.rmtree(old)


def _val_label(index: int) -> int:
    """The class of validation image `index`: each class once in every ten, shuffled."""
    block, place = divmod(index, len(WORDS))
    order = np.random.Generator(np.random.PCG64([VERSION, VAL, block])).permutation(len(WORDS))
    return int(order[place])


def _write_lists(work: Path, val: int) -> None:
    labels = [_val_label(index) for index in range(val)]
    lists = {
        "val.txt": [f"{_val_name(index)}.JPEG {label}" for index, label in enumerate(labels)],
        "ILSVRC2012_validation_ground_truth.txt": [str(label + 1) for label in labels],
        "synset_words.txt": [f"{wnid} {word}" for wnid, word in zip(WNIDS, WORDS, strict=True)],
    }
    for name, lines in lists.items():
        (work / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for folder in (Path("train"), Path("bbox", "train")):
        for wnid in WNIDS:
            (work / folder / wnid).mkdir(parents=True)
    for folder in (Path("val"), Path("bbox", "val")):
        (work / folder).mkdir(parents=True)


def _val_name(index: int) -> str:
    return f"ILSVRC2012_val_{index + 1:08d}"


def _write_images(
    work: Path,
    sources: dict[int, Sources],
    counts: dict[int, int],
    seed: int,
    progress: Progress | None,
) -> None:
    """Draw and write every scene, each from its own random stream, so threads change nothing."""
    jobs = [(split, index) for split in (TRAIN, VAL) for index in range(counts[split])]

    def write(chunk: list[tuple[int, int]]) -> int:
        for split, index in chunk:
            label = index % len(WORDS) if split == TRAIN else _val_label(index)
            rng = np.random.Generator(np.random.PCG64([VERSION, seed, split, index]))
            _write_scene(work, split, index, draw_scene(sources[split], label, rng))
        return len(chunk)

    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    done = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for count in pool.map(write, chunks):
            done += count
            if progress is not None:
                progress(done, len(jobs))


def _write_scene(work: Path, split: int, index: int, scene: Scene) -> None:
    wnid = WNIDS[scene.label]
    if split == TRAIN:
        path = Path("train", wnid, f"{wnid}_{index // len(WORDS) + 1}")
    else:
        path = Path("val", _val_name(index))
    ok, data = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise DataError(f"{path}: image does not encode as JPEG; reinstall opencv-python")
    (work / path.with_suffix(".JPEG")).write_bytes(data.tobytes())
    xml = _annotation(path.parent.name, path.name, wnid, scene)
    (work / "bbox" / path.with_suffix(".xml")).write_text(xml, encoding="utf-8")


def _annotation(folder: str, name: str, wnid: str, scene: Scene) -> str:
    """The XML of a scene's box as in ILSVRC-2012; xmax and ymax are the far edges."""
    height, width = scene.image.shape[:2]
    box = scene.box
    return (
        "<annotation>\n"
        f"\t<folder>{folder}</folder>\n"
        f"\t<filename>{name}</filename>\n"
        "\t<source>\n\t\t<database>verydeep digit scenes</database>\n\t</source>\n"
        "\t<size>\n"
        f"\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n"
        "\t</size>\n"
        "\t<segmented>0</segmented>\n"
        "\t<object>\n"
        f"\t\t<name>{wnid}</name>\n"
        "\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        "\t\t<difficult>0</difficult>\n"
        "\t\t<bndbox>\n"
        f"\t\t\t<xmin>{box.xmin}</xmin>\n\t\t\t<ymin>{box.ymin}</ymin>\n"
        f"\t\t\t<xmax>{box.xmax}</xmax>\n\t\t\t<ymax>{box.ymax}</ymax>\n"
        "\t\t</bndbox>\n"
        "\t</object>\n"
        "</annotation>\n"
    )
