"""A task solved by linear SVMs on features of one net, or on those of several, stacked.

Paper: appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DataError, ProtoError
from runtime.paper.features.extraction import BOXES, Features
from runtime.paper.features.images import region_name
from runtime.paper.features.measures import RECALL, Scores, Targets, per_class
from runtime.paper.features.svm import GRID, HELD_OUT, Choice, choose_c, fit_svm
from runtime.paper.features.tasks import Samples, Split, Task

_SHOWN = 3


@dataclass(frozen=True)
class SplitResult:
    """What one split gave; fractions."""

    mean: float
    classes: tuple[float, ...]
    choice: Choice
    train: int
    test: int


@dataclass(frozen=True)
class Outcome:
    """What a task gave, and all that the number depends on."""

    task: Task
    members: tuple[dict[str, Any], ...]
    splits: tuple[SplitResult, ...]
    dimension: int
    seed: int

    @property
    def mean(self) -> float:
        """Over the splits."""
        return float(np.mean([split.mean for split in self.splits]))

    @property
    def std(self) -> float | None:
        """Of the splits, as an estimate for all splits there could be; None where there is one."""
        if len(self.splits) < 2:
            return None
        return float(np.std([split.mean for split in self.splits], ddof=1))

    def svm_words(self) -> str:
        """How the classifier was trained."""
        chosen = ", ".join(f"{split.choice.C:g}" for split in self.splits)
        how = "given"
        if self.splits[0].choice.measured:
            tried = ", ".join(f"{C:g}" for C in self.splits[0].choice.measured)
            how = f"of {tried} by {HELD_OUT:.0%} of the training images held out (seed {self.seed})"
        return f"one-vs-rest LinearSVC, C = {chosen} ({how}), trained again on all of them"


class Stacked:
    """Features of several nets or regions, one after the other, each of length 1.

    Raises:
        ProtoError: there are none.
    """

    def __init__(self, members: Sequence[Features]) -> None:
        if not members:
            raise ProtoError("features: nothing to stack; expected at least one file, got 0")
        self.members = members
        self._rows = [{name: row for row, name in enumerate(each.names)} for each in members]

    @property
    def dimension(self) -> int:
        """Of the whole."""
        return sum(each.values.shape[1] for each in self.members)

    def of(self, samples: Samples) -> npt.NDArray[np.float32]:
        """The features of samples. Shape (N, dimension).

        Raises:
            DataError: a file lacks some of them.
        """
        return np.concatenate([self._part(index, samples) for index in range(len(self.members))], 1)

    def _part(self, index: int, samples: Samples) -> npt.NDArray[np.float32]:
        member, rows = self.members[index], self._rows[index]
        names: Sequence[str] = samples.images
        if member.attributes["regions"] == BOXES:
            names = [region_name(*pair) for pair in zip(samples.images, samples.people)]
        missing = [name for name in names if name not in rows]
        if missing:
            shown = ", ".join(list(dict.fromkeys(missing))[:_SHOWN])
            raise DataError(
                f"features of {member.attributes['net']} ({member.attributes['regions']} of "
                f"{member.attributes.get('source', 'a set')}): {len(missing)} of {len(names)} "
                f"samples are not among them, such as {shown}; expected all; "
                "extract the features of this data set, with --set or --boxes where the task needs "
                "them"
            )
        return member.values[[rows[name] for name in names]]


def solve(
    task: Task, features: Sequence[Features], grid: Sequence[float] = GRID, seed: int = 0
) -> Outcome:
    """Choose C, train on all training images, and measure, for every split.

    Raises:
        DataError: features are missing, or a class has too few images.
        ProtoError: no features, or an impossible C.
    """
    stacked = Stacked(features)
    splits = tuple(_solve_split(task, split, stacked, grid, seed) for split in task.splits)
    members = tuple(dict(member.attributes) for member in features)
    return Outcome(task, members, splits, stacked.dimension, seed)


def mean_measure(measure: str, scores: Scores, targets: Targets) -> float:
    """The mean over the classes; those without any image of theirs are left out of an AP's mean.

    So few images may be held out that a class has none there. Tests are measured by `per_class`,
    which refuses that.
    """
    there = (targets > 0).any(axis=0)
    if measure == RECALL or not there.any():
        return float(per_class(measure, scores, targets).mean())
    return float(per_class(measure, scores[:, there], targets[:, there]).mean())


def _solve_split(
    task: Task, split: Split, stacked: Stacked, grid: Sequence[float], seed: int
) -> SplitResult:
    values, targets = stacked.of(split.train), split.train.targets
    choice = choose_c(
        values,
        targets,
        split.train.images,
        lambda scores, truth: mean_measure(task.measure, scores, truth),
        grid,
        seed,
    )
    svm = fit_svm(values, targets, choice.C)
    found = per_class(task.measure, svm.scores(stacked.of(split.test)), split.test.targets)
    return SplitResult(
        float(found.mean()), tuple(found.tolist()), choice, len(split.train), len(split.test)
    )
