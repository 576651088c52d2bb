"""Data sets of images with one class each, in any layout; `open_data_set` opens them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_prep.boxes import Box
from data_prep.ilsvrc_truth import Synset
from data_prep.sampler import permutation
from prototxt_gen.errors import DataError

Entry = tuple[str, int]
"""Path below the root of the data set, with forward slashes, and label."""

VAL_FRACTION = 0.2
_SHOWN = 3
_LOG = logging.getLogger("verydeep.data")


class DataSet(Protocol):
    """Training and held-out images; a label is an index into `synsets`."""

    @property
    def root(self) -> Path:
        """The folder that the paths are relative to."""
        ...

    @property
    def synsets(self) -> tuple[Synset, ...]:
        """The classes."""
        ...

    def train_list(self) -> list[Entry]:
        """The training images in a fixed order."""
        ...

    def val_list(self) -> list[Entry]:
        """The held-out images in a fixed order."""
        ...

    def boxes(self, name: str) -> list[Box]:
        """The boxes of an image; empty if it has none.

        Raises:
            DataError: the data set has no boxes, or they cannot be read.
        """
        ...


@dataclass(frozen=True)
class Split:
    """How images without a held-out part are divided."""

    fraction: float = VAL_FRACTION
    """The part of each class that is held out."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise DataError(
                f"held-out fraction: expected a number between 0 and 1, got {self.fraction:g}; "
                "correct it"
            )


@dataclass(frozen=True)
class ListedSet:
    """A data set whose images are listed when it is opened."""

    root: Path
    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    val: tuple[Entry, ...]
    read_boxes: Callable[[str], list[Box]] | None = dataclasses.field(default=None, compare=False)
    """The boxes of an image by its path; None for a data set without boxes."""

    @property
    def synsets(self) -> tuple[Synset, ...]:
        return tuple(Synset(name, "") for name in self.classes)

    def train_list(self) -> list[Entry]:
        return list(self.train)

    def val_list(self) -> list[Entry]:
        return list(self.val)

    def boxes(self, name: str) -> list[Box]:
        if self.read_boxes is None:
            raise DataError(
                f"{self.root}: the data set has no boxes; expected annotations of VOC, COCO or "
                "ILSVRC; give a data set with boxes"
            )
        return self.read_boxes(name)


def class_names(data: DataSet) -> tuple[str, ...]:
    """The names of the classes for people: the words of a synset, or its wnid."""
    return tuple(synset.words or synset.wnid for synset in data.synsets)


def listed_set(
    root: Path,
    classes: Sequence[str],
    train: Sequence[Entry],
    val: Sequence[Entry] | None,
    split: Split,
    read_boxes: Callable[[str], list[Box]] | None = None,
) -> ListedSet:
    """Check the lists of a data set; without held-out images, a part of each class is held out.

    Raises:
        DataError: there are fewer than two classes, a class has no images, or none is held out.
    """
    if len(classes) < 2:
        shown = f" ({classes[0]})" if classes else ""
        raise DataError(
            f"{root}: {len(classes)} class{'es' * (not classes)}{shown}; expected at least 2, such "
            "as DIR/cat/*.jpg and DIR/dog/*.jpg; add images of another class"
        )
    chosen = list(train)
    if val is None:
        chosen, held = _divided(chosen, len(classes), split)
        _LOG.info(
            "%s: no held-out images; %d of %d are held out, %g of each class, seed %d",
            root,
            len(held),
            len(train),
            split.fraction,
            split.seed,
        )
        val = held
    counts = [0] * len(classes)
    for _, label in chosen:
        counts[label] += 1
    empty = [name for name, count in zip(classes, counts) if not count]
    if empty:
        more = ", ..." if len(empty) > _SHOWN else ""
        raise DataError(
            f"{root}: no training images of {len(empty)} of {len(classes)} classes "
            f"({', '.join(empty[:_SHOWN])}{more}); expected at least one of each; add images, or "
            "remove the class"
        )
    if not val:
        raise DataError(
            f"{root}: no image is held out; expected at least one class with 2 images or more; add "
            "images, or a folder val"
        )
    return ListedSet(root, tuple(classes), tuple(chosen), tuple(val), read_boxes)


def _divided(
    entries: Sequence[Entry], classes: int, split: Split
) -> tuple[list[Entry], list[Entry]]:
    """Divide a list by class; a class with one image has none held out, others at least one."""
    members: list[list[int]] = [[] for _ in range(classes)]
    for place, (_, label) in enumerate(entries):
        members[label].append(place)
    held: set[int] = set()
    for label, places in enumerate(members):
        if len(places) > 1:
            count = min(max(1, round(split.fraction * len(places))), len(places) - 1)
            order = permutation(len(places), split.seed, label)
            held.update(places[place] for place in order[:count])
    train = [entry for place, entry in enumerate(entries) if place not in held]
    return train, [entries[place] for place in sorted(held)]
