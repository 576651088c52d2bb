"""The tasks on other data sets: training and test images, and the measure.

Paper: appendix B, Tables 11 and 12.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.caltech import open_caltech
from data_prep.data_set import Split as DataSplit
from data_prep.data_set import class_names
from data_prep.open_data_set import open_data_set
from data_prep.voc import ACTION, MAIN, Listed, open_voc
from prototxt_gen.errors import ProtoError
from runtime.paper.features.measures import ALL_POINTS, ELEVEN_POINTS, RECALL, Targets

VOC2007, VOC2012, ACTION2012 = "voc2007", "voc2012", "action2012"
CALTECH101, CALTECH256 = "caltech101", "caltech256"
TASKS = (VOC2007, VOC2012, CALTECH101, CALTECH256, ACTION2012)
"""The tasks of the paper."""
FOLDER = "folder"
"""Own classes, in any layout of a data set; not a task of the paper."""
ALL_TASKS = (*TASKS, FOLDER)

_VOC = {
    VOC2007: (MAIN, "trainval", "test", ELEVEN_POINTS),
    VOC2012: (MAIN, "train", "val", ALL_POINTS),
    ACTION2012: (ACTION, "train", "val", ALL_POINTS),
}
"""Training split, test split and measure. The test labels of 2012 are not published."""
_CALTECH = {CALTECH101: (30, 50), CALTECH256: (60, None)}
"""Training images per class, and the limit of test images per class."""
RANDOM_SPLITS = 3


@dataclass(frozen=True, eq=False)
class Samples:
    """Images, or people in them, with their targets. Shapes: targets (N,K)."""

    images: tuple[str, ...]
    people: tuple[int, ...]
    """Numbers in the annotations, from 1; 0 for whole images."""
    targets: Targets

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test samples."""

    train: Samples
    test: Samples


@dataclass(frozen=True, eq=False)
class Task:
    """A task; `words` is its protocol."""

    name: str
    classes: tuple[str, ...]
    splits: tuple[Split, ...]
    measure: str
    words: str
    root: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskOptions:
    """The options of a task; None for the values of the paper."""

    train: str | None = None
    test: str | None = None
    train_per_class: int | None = None
    test_per_class: int | None = None
    splits: int = RANDOM_SPLITS
    seed: int = 0


def open_task(name: str, root: Path, options: TaskOptions | None = None) -> Task:
    """Open a task on the data in a folder.

    Raises:
        ProtoError: an unknown task, or an option of another task.
        DataError: the data is missing or incomplete.
    """
    options = options or TaskOptions()
    given = [o for o in ("train", "test") if getattr(options, o) is not None]
    given_counts = [
        o for o in ("train_per_class", "test_per_class") if getattr(options, o) is not None
    ]
    if name not in ALL_TASKS:
        raise ProtoError(f"task: expected one of {', '.join(ALL_TASKS)}, got {name!r}")
    wrong = given_counts if name in _VOC else given
    if name == FOLDER:
        wrong = [*given, *given_counts]
    if wrong:
        flags = ", ".join(f"--{option.replace('_', '-')}" for option in wrong)
        kind = "VOC has splits by name" if name in _VOC else "Caltech's splits are random"
        if name == FOLDER:
            kind = "the data set has its own split"
        raise ProtoError(f"task {name}: {kind}; expected no {flags}; omit it")
    if name == FOLDER:
        return _folder_task(root, options)
    return _voc_task(name, root, options) if name in _VOC else _caltech_task(name, root, options)


def _voc_task(name: str, root: Path, options: TaskOptions) -> Task:
    kind, train, test, measure = _VOC[name]
    train, test = options.train or train, options.test or test
    voc = open_voc(root)
    learnt, tested = (voc.lists(split, kind) for split in (train, test))
    missing = sorted(set(learnt) ^ set(tested))
    if missing:
        raise ProtoError(
            f"{voc.root}: lists of {', '.join(missing)} exist for only one of the splits {train} "
            f"and {test}; expected both; unpack the development kit again"
        )
    split = Split(*(_listed(lists, voc.file) for lists in (learnt, tested)))
    unit = "people in images" if kind == ACTION else "images"
    words = (
        f"trained on {train} ({len(split.train)} {unit}), tested on {test} ({len(split.test)}); "
        "difficult ones are ignored"
    )
    options_used = {"train": train, "test": test}
    return Task(name, tuple(learnt), (split,), measure, words, str(voc.root), options_used)


def _listed(lists: Mapping[str, Sequence[Listed]], file: Any) -> Samples:
    first = next(iter(lists.values()))
    targets = np.array(
        [[entry.target for entry in entries] for entries in lists.values()], np.int8
    ).T
    return Samples(
        tuple(file(entry.image) for entry in first),
        tuple(entry.person for entry in first),
        targets,
    )


def _folder_task(root: Path, options: TaskOptions) -> Task:
    data = open_data_set(root, DataSplit(seed=options.seed))
    classes = class_names(data)

    def samples(entries: Sequence[tuple[str, int]]) -> Samples:
        targets = -np.ones((len(entries), len(classes)), np.int8)
        targets[np.arange(len(entries)), [label for _, label in entries]] = 1
        return Samples(tuple(name for name, _ in entries), (0,) * len(entries), targets)

    split = Split(samples(data.train_list()), samples(data.val_list()))
    words = (
        f"not a protocol of the paper: trained on {len(split.train)} images of {len(classes)} "
        f"classes, tested on {len(split.test)} held-out images"
    )
    return Task(FOLDER, classes, (split,), RECALL, words, str(root), {"seed": options.seed})


def _caltech_task(name: str, root: Path, options: TaskOptions) -> Task:
    data = open_caltech(root)
    train, test = _CALTECH[name]
    train, test = options.train_per_class or train, options.test_per_class or test
    if options.splits < 1:
        raise ProtoError(f"--splits: expected at least 1, got {options.splits}")
    splits = []
    for number in range(options.splits):
        chosen = data.split(number, train, test, options.seed)
        splits.append(Split(classed(chosen.train), classed(chosen.test)))
    rest = "all others" if test is None else f"up to {test} others"
    words = (
        f"{options.splits} random splits, seed {options.seed}: {train} training images per class, "
        f"{rest} for testing; {len(data.images)} classes"
    )
    options_used: dict[str, Any] = {"splits": options.splits, "seed": options.seed}
    options_used |= {"train_per_class": train, "test_per_class": test}
    return Task(
        name, tuple(data.images), tuple(splits), RECALL, words, str(data.root), options_used
    )


def classed(images: Mapping[str, Iterable[str]]) -> Samples:
    """Return samples with one class each, from the images of every class."""
    pairs = [(name, k) for k, names in enumerate(images.values()) for name in names]
    targets = -np.ones((len(pairs), len(images)), np.int8)
    targets[np.arange(len(pairs)), [k for _, k in pairs]] = 1
    return Samples(tuple(name for name, _ in pairs), (0,) * len(pairs), targets)
