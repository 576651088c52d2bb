"""Caltech-101 and Caltech-256 on disk: a folder for each class, and random splits. Paper: B.

101_ObjectCategories/<class>/image_0001.jpg     102 classes with the background
256_ObjectCategories/001.ak47/001_0001.jpg      257 classes with the clutter
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_prep.ilsvrc_truth import listed
from data_prep.sampler import permutation
from prototxt_gen.errors import DataError

FOLDERS = ("101_ObjectCategories", "256_ObjectCategories")
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True)
class CaltechSplit:
    """The training and test images of each class, by their paths below the root."""

    train: dict[str, list[str]]
    test: dict[str, list[str]]


@dataclass(frozen=True)
class Caltech:
    """The folder of classes; `images` has the sorted files of each class."""

    root: Path
    images: dict[str, list[str]]

    def split(self, number: int, train: int, test: int | None, seed: int = 0) -> CaltechSplit:
        """Random split `number`: `train` images of each class, and up to `test` of the others.

        It depends only on the numbers and on the order of the files by name.

        Raises:
            DataError: a class has too few images.
        """
        if train < 1 or (test is not None and test < 1):
            raise DataError(
                f"split: {train} training and {test} test images a class; expected at least 1 each"
            )
        chosen = CaltechSplit({}, {})
        for number_of_class, (name, files) in enumerate(self.images.items()):
            if len(files) <= train:
                raise DataError(
                    f"{self.root / name}: {len(files)} images; expected more than the {train} to "
                    "train on, so that some are left to test; unpack the class again, or train on "
                    "fewer"
                )
            epoch = (number << 16) + number_of_class
            order = [files[index] for index in permutation(len(files), seed, epoch)]
            stop = None if test is None else train + test
            chosen.train[name] = sorted(order[:train])
            chosen.test[name] = sorted(order[train:stop])
        return chosen


def open_caltech(root: str | Path) -> Caltech:
    """Find the folder of classes: in the root, a folder below it, or the root itself.

    Raises:
        DataError: there is no such folder, there are several, or a class has no images.
    """
    base = Path(root)
    folders = sorted(p for name in FOLDERS for p in (*base.glob(name), *base.glob(f"*/{name}")))
    if len(folders) > 1:
        raise DataError(f"{base}: both {listed(folders)}; expected one; name its folder")
    folder = folders[0] if folders else base
    classes = _subfolders(folder)
    if not folders and (len(classes) < 2 or not any(map(_images, classes))):
        raise DataError(
            f"{base}: no Caltech data; expected {' or '.join(FOLDERS)}, or a folder for each class "
            "with its images; unpack the archive there"
        )
    images = {}
    for path in classes:
        images[path.name] = [f"{path.name}/{name}" for name in _images(path)]
        if not images[path.name]:
            raise DataError(
                f"{path}: no images; expected *.jpg; unpack the class again, or remove the folder"
            )
    return Caltech(folder, images)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _images(folder: Path) -> list[str]:
    # Caltech-256 has a script and a folder among its images.
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
