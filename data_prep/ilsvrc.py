"""ILSVRC-2012 on disk: its folders, and its lists of (path, label) in a fixed order.

    train/<wnid>/*.JPEG             also ILSVRC2012_img_train, ILSVRC/Data/CLS-LOC/train
    val/*.JPEG or val/<wnid>/*.JPEG also ILSVRC2012_img_val, ILSVRC/Data/CLS-LOC/val
    synset_words.txt                also LOC_synset_mapping.txt, synsets.txt; else the folders of
                                    train in alphabetical order, which is logged
    validation labels, the first of these that exists:
        val.txt                                     `name label`, labels from 0
        LOC_val_solution.csv                        of Kaggle
        ILSVRC2012_validation_ground_truth.txt      of the development kit, with its meta.mat
        the folders of val, if it has folders
    bounding boxes                  bbox/<split>, Annotation/..., ILSVRC/Annotations/CLS-LOC/<split>

Any data set with this layout can be opened; it may have other classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep import ilsvrc_truth as truth
from data_prep.boxes import Box, read_boxes
from data_prep.data_set import Entry
from data_prep.ilsvrc_truth import Synset, listed
from prototxt_gen.errors import DataError

__all__ = ["Box", "Entry", "Ilsvrc", "Synset", "open_ilsvrc", "read_boxes", "write_list"]

_SPLITS = {
    "train": ("train", "ILSVRC2012_img_train", "ILSVRC/Data/CLS-LOC/train"),
    "val": ("val", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val"),
}
_BOXES = {
    "train": (
        "bbox/train",
        "Annotation/train",
        "ILSVRC/Annotations/CLS-LOC/train",
        "ILSVRC2012_bbox_train_v2",
        "Annotation",
    ),
    "val": (
        "bbox/val",
        "Annotation/val",
        "ILSVRC/Annotations/CLS-LOC/val",
        "ILSVRC2012_bbox_val_v3/val",
    ),
}
_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
_LOG = logging.getLogger("verydeep.data")


@dataclass(frozen=True)
class Ilsvrc:
    """An opened data set; a label is an index into `synsets`."""

    root: Path
    train: Path
    val: Path
    synsets: tuple[Synset, ...]

    def train_list(self) -> list[Entry]:
        """The training images, sorted by wnid and then by name.

        Raises:
            DataError: a class has no folder or no images, or a folder is not a class.
        """
        folders = {path.name: path for path in _subfolders(self.train)}
        wnids = {synset.wnid: label for label, synset in enumerate(self.synsets)}
        unknown = sorted(set(folders) - set(wnids))
        missing = sorted(set(wnids) - set(folders))
        if unknown or missing:
            problem = f"{len(missing)} classes have no folder ({', '.join(missing[:5])})"
            if unknown:
                problem = f"folders that are no class of the synset file ({', '.join(unknown[:5])})"
            raise DataError(
                f"{self.train}: {problem}; expected one folder for each of {len(wnids)} synsets; "
                "unpack the missing archives, or give a synset file with your classes alone"
            )
        entries = []
        for wnid in sorted(folders):
            names = _images(folders[wnid])
            if not names:
                raise DataError(
                    f"{folders[wnid]}: no images; expected *.JPEG; unpack the class's archive"
                )
            entries += [(self._relative(folders[wnid] / name), wnids[wnid]) for name in names]
        return entries

    def val_list(self) -> list[Entry]:
        """The validation images sorted by name, with labels from the first source that exists.

        Raises:
            DataError: there are no labels, or they do not fit the images.
        """
        sorted_folders = _subfolders(self.val)
        names = _images(self.val)
        if not names and sorted_folders:
            return self._val_in_folders(sorted_folders)
        if not names:
            raise DataError(f"{self.val}: no images; expected *.JPEG; unpack the archive")
        labels, source = self._val_labels(names)
        unlabelled = [name for name in names if name not in labels]
        absent = sorted(set(labels) - set(names))
        if unlabelled or absent:
            problem, names_concerned = "image without a label", unlabelled
            if absent:
                problem, names_concerned = f"name that is no image of {self.val}", absent
            raise DataError(
                f"{source}: {len(names_concerned)} x {problem}, first {names_concerned[0]}; "
                f"expected a label for each of {len(names)} images; unpack the archive again, or "
                "use its own list"
            )
        return [(self._relative(self.val / name), labels[name]) for name in names]

    def boxes_path(self, entry: str) -> Path | None:
        """The box file of an image of a list; None if the data set has none for it.

        Raises:
            DataError: the data set has no folder of boxes for that split.
        """
        image = self.root / entry
        split = "train" if image.is_relative_to(self.train) else "val"
        tried = [self.root / folder for folder in _BOXES[split]]
        folder = next((path for path in tried if path.is_dir()), None)
        if folder is None:
            raise DataError(
                f"{self.root}: no bounding boxes of {split}; looked for {listed(tried)}; "
                "unpack the bounding-box archive there"
            )
        base = self.train if split == "train" else self.val
        path = folder / image.relative_to(base).with_suffix(".xml")
        return path if path.is_file() else None

    def boxes(self, name: str) -> list[Box]:
        """The boxes of an image of a list; empty if it has no box file.

        Raises:
            DataError: the data set has no folder of boxes for that split, or the file is damaged.
        """
        path = self.boxes_path(name)
        return [] if path is None else read_boxes(path)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _val_in_folders(self, folders: Sequence[Path]) -> list[Entry]:
        wnids = {synset.wnid: label for label, synset in enumerate(self.synsets)}
        for folder in folders:
            if folder.name not in wnids:
                raise DataError(f"{folder}: no class of the synset file; expected a wnid of it")
        entries = [
            (name, folder, wnids[folder.name]) for folder in folders for name in _images(folder)
        ]
        return [(self._relative(folder / name), label) for name, folder, label in sorted(entries)]

    def _val_labels(self, names: Sequence[str]) -> tuple[dict[str, int], Path]:
        named, tried = truth.find_file(self.root, ("val.txt",))
        if named is not None:
            return truth.read_name_list(named, len(self.synsets)), named
        solution, tried_solution = truth.find_file(self.root, ("LOC_val_solution.csv",))
        if solution is not None:
            label_of = {synset.wnid: label for label, synset in enumerate(self.synsets)}
            return truth.read_solution(solution, label_of), solution
        kit, tried_kit = truth.find_file(self.root, ("ILSVRC2012_validation_ground_truth.txt",))
        if kit is None:
            first = [paths[0] for paths in (tried, tried_solution, tried_kit)]
            raise DataError(
                f"{self.root}: no labels of the validation images; looked for {listed(first)}, "
                f"also in {', '.join(filter(None, truth.KIT_FOLDERS))}, "
                f"and for folders in {self.val}; copy one of them there"
            )
        labels = truth.read_ground_truth(kit, self.root, self.synsets)
        if len(labels) != len(names):
            raise DataError(
                f"{kit}: {len(labels)} labels; expected {len(names)}, one for each image of "
                f"{self.val}; unpack the archive again"
            )
        return dict(zip(names, labels, strict=True)), kit


def is_ilsvrc(root: Path) -> bool:
    """Whether a folder has ILSVRC's own names or lists, or images without class folders.

    A folder with `train` and `val` that have only class folders is a plain folder of images.
    """
    named = any((root / name).is_dir() for names in _SPLITS.values() for name in names[1:])
    if named or truth.find_file(root, truth.SYNSET_FILES)[0] is not None:
        return True
    train, val = (root / names[0] for names in _SPLITS.values())
    if train.is_dir() and not _subfolders(train):
        return True
    return val.is_dir() and bool(_images(val))


def open_ilsvrc(root: str | Path) -> Ilsvrc:
    """Find the parts of a data set.

    Raises:
        DataError: the root, train, val or every synset list is missing.
    """
    base = Path(root)
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; expected the root of ILSVRC-2012 or its like")
    parts = {}
    for split, folders in _SPLITS.items():
        tried = [base / folder for folder in folders]
        images = next((path for path in tried if path.is_dir()), None)
        if images is None:
            raise DataError(
                f"{base}: no {split} images; looked for {listed(tried)}; unpack the archive there"
            )
        parts[split] = images
    path, _ = truth.find_file(base, truth.SYNSET_FILES)
    if path is not None:
        synsets = truth.read_synsets(path)
    else:
        synsets = tuple(Synset(folder.name, folder.name) for folder in _subfolders(parts["train"]))
        if not synsets:
            raise DataError(
                f"{parts['train']}: no folders of classes; expected train/<wnid>/*.JPEG; "
                "unpack the archive there"
            )
        _LOG.warning(
            "%s: no %s; labels follow the folders of train in alphabetical order",
            base,
            " or ".join(truth.SYNSET_FILES),
        )
    return Ilsvrc(base, parts["train"], parts["val"], synsets)


def write_list(entries: Sequence[Entry]) -> str:
    """The text of a LISTFILE of convert_imageset."""
    return "".join(f"{path} {label}\n" for path, label in entries)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _images(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
