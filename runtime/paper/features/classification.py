"""Solves a task by linear SVMs on the features of one net, or of several nets, stacked.

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
from runtime.paper.features.svm import GRID, HELD_OUT, Choice, LinearSvm, choose_c, fit_svm
from runtime.paper.features.tasks import Samples, Split, Task

_SHOWN = 3


@dataclass(frozen=True)
class SplitResult:
    """The results of one split, as fractions."""

    mean: float
    classes: tuple[float, ...]
    choice: Choice
    train: int
    test: int


@dataclass(frozen=True)
class Outcome:
    """The results of a task, and everything they depend on."""

    task: Task
    members: tuple[dict[str, Any], ...]
    splits: tuple[SplitResult, ...]
    dimension: int
    seed: int
    svms: tuple[LinearSvm, ...] = ()
    """The classifier of every split."""

    @property
    def mean(self) -> float:
        """The mean of the splits, as a fraction."""
        return float(np.mean([split.mean for split in self.splits]))

    @property
    def std(self) -> float | None:
        """The sample standard deviation of the splits; None for a single split."""
        if len(self.splits) < 2:
            return None
        return float(np.std([split.mean for split in self.splits], ddof=1))

    def svm_words(self) -> str:
        """Return the training of the classifier in words."""
        chosen = ", ".join(f"{split.choice.C:g}" for split in self.splits)
        source = "given"
        if self.splits[0].choice.measured:
            tried = ", ".join(f"{C:g}" for C in self.splits[0].choice.measured)
            source = (
                f"of {tried} by {HELD_OUT:.0%} of the training images held out (seed {self.seed})"
            )
        return f"one-vs-rest LinearSVC, C = {chosen} ({source}), trained again on all of them"


class Stacked:
    """The concatenated features of several nets or regions, each of length 1.

    Raises:
        ProtoError: there are no features.
    """

    def __init__(self, members: Sequence[Features]) -> None:
        if not members:
            raise ProtoError("features: nothing to stack; expected at least one file, got 0")
        self.members = members
        self._rows = [{name: row for row, name in enumerate(part.names)} for part in members]

    @property
    def dimension(self) -> int:
        """The number of values per sample."""
        return sum(part.values.shape[1] for part in self.members)

    def rows(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Return the features of samples. Shapes: result (N, dimension).

        Raises:
            DataError: a file lacks some of the samples.
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
                f"samples are missing, such as {shown}; expected all; extract the features of this "
                "data set, with --set or --boxes if the task needs them"
            )
        return member.values[[rows[name] for name in names]]


def solve(
    task: Task, features: Sequence[Features], grid: Sequence[float] = GRID, seed: int = 0
) -> Outcome:
    """Choose C, train on all training images and measure, for every split.

    Raises:
        DataError: features are missing, or a class has too few images.
        ProtoError: there are no features, or a C is not positive.
    """
    stacked = Stacked(features)
    solved = [_solve_split(task, split, stacked, grid, seed) for split in task.splits]
    members = tuple(dict(member.attributes) for member in features)
    splits, svms = (tuple(part) for part in zip(*solved))
    return Outcome(task, members, splits, stacked.dimension, seed, svms)


def mean_measure(measure: str, scores: Scores, targets: Targets) -> float:
    """Return the mean over the classes; average precision omits classes without images.

    Few held-out images may contain no image of a class. Tests are measured by `per_class`, which
    refuses that.

    Shapes: scores (N,K), targets (N,K).
    """
    present = (targets > 0).any(axis=0)
    if measure == RECALL or not present.any():
        return float(per_class(measure, scores, targets).mean())
    return float(per_class(measure, scores[:, present], targets[:, present]).mean())


def _solve_split(
    task: Task, split: Split, stacked: Stacked, grid: Sequence[float], seed: int
) -> tuple[SplitResult, LinearSvm]:
    values, targets = stacked.rows(split.train), split.train.targets
    choice = choose_c(
        values,
        targets,
        split.train.images,
        lambda scores, truth: mean_measure(task.measure, scores, truth),
        grid,
        seed,
    )
    svm = fit_svm(values, targets, choice.C)
    measured = per_class(task.measure, svm.scores(stacked.rows(split.test)), split.test.targets)
    result = SplitResult(
        float(measured.mean()), tuple(measured.tolist()), choice, len(split.train), len(split.test)
    )
    return result, svm
