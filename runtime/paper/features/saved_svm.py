"""Linear SVMs in files, and their application to the features of other images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from prototxt_gen.reading import parse_json
from prototxt_gen.regular_file import RegularFile
from runtime.core.npz_arrays import read_arrays
from runtime.paper.features.extraction import Features
from runtime.paper.features.svm import LinearSvm

SUFFIX = ".npz"
_FACTS = ("weights_sha256", "layer", "scales", "aggregate", "flip", "preprocessing", "regions")
"""Attributes of features that must be those of the training."""


@dataclass(frozen=True, eq=False)
class SavedSvm:
    """One linear SVM per class, and everything that its features depend on."""

    svm: LinearSvm
    classes: tuple[str, ...]
    members: tuple[dict[str, Any], ...]
    """The attributes of the features of each net, in the order in which they are stacked."""
    C: float
    task: str

    def apply(self, members: Sequence[Features]) -> npt.NDArray[np.float64]:
        """The decision values of every class.

        Shapes: result (N,K), in the order of the first file's names.

        Raises:
            DataError: the features are not those that the SVM was trained on, or the files have
                other images.
        """
        if len(members) != len(self.members):
            raise DataError(
                f"linear SVM: {len(members)} files of features; expected {len(self.members)}, as "
                "in its training; give as many files in the same order"
            )
        for features, trained in zip(members, self.members):
            self._check(features, trained)
        if any(features.names != members[0].names for features in members):
            raise DataError(
                "linear SVM: the files have features of other images; expected the same images in "
                "the same order; extract them from one data set"
            )
        return self.svm.scores(np.concatenate([features.values for features in members], axis=1))

    def _check(self, features: Features, trained: dict[str, Any]) -> None:
        for fact in _FACTS:
            expected, found = trained.get(fact), features.attributes.get(fact)
            if expected != found:
                raise DataError(
                    f"linear SVM: features with another {fact}; expected {expected!r}, as in its "
                    f"training, got {found!r}; extract the features in the same way"
                )


def check_svm_path(path: Path) -> None:
    """Check that a file name has the suffix of a saved SVM.

    Raises:
        DataError: it has not.
    """
    if path.suffix != SUFFIX:
        raise DataError(
            f"{path}: SVMs are written to {SUFFIX} files; expected a name that ends in {SUFFIX}, "
            f"got {path.suffix!r}; rename the file"
        )


def write_svm(path: Path, saved: SavedSvm) -> None:
    """Write an SVM to a file, which is replaced.

    Raises:
        DataError: another suffix, or the file cannot be written.
    """
    check_svm_path(path)
    attributes = {
        "classes": list(saved.classes),
        "members": list(saved.members),
        "C": saved.C,
        "task": saved.task,
    }
    with atomic_write(path, "wb", DataError) as stream:
        np.savez(
            stream,
            weights=saved.svm.weights,
            bias=saved.svm.bias,
            attributes=np.array(json.dumps(attributes)),
        )


def read_svm(path: Path) -> SavedSvm:
    """Read what `write_svm` wrote.

    Raises:
        DataError: the file is missing, damaged or of another kind.
    """
    try:
        RegularFile(path).check()
        arrays = read_arrays(path, "weights", "bias", "attributes")
        attributes = parse_json(str(arrays["attributes"]))
        weights = np.asarray(arrays["weights"], np.float64)
        bias = np.asarray(arrays["bias"], np.float64)
        classes = tuple(map(str, attributes["classes"]))
        members = tuple(dict(member) for member in attributes["members"])
        dimension = sum(int(member["dimension"]) for member in members)
        if weights.shape != (dimension, len(classes)) or bias.shape != (len(classes),):
            raise ValueError(f"weights {weights.shape}, bias {bias.shape}")
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError("weights that are not finite")
        svm = LinearSvm(weights, bias)
        return SavedSvm(svm, classes, members, float(attributes["C"]), str(attributes["task"]))
    except (DataError, OSError, ValueError, KeyError, TypeError) as cause:
        reason = str(cause).removeprefix(f"{path}: ")
        raise DataError(
            f"{path}: the SVM cannot be read: {reason}; expected a file that `verydeep features "
            "evaluate --save` wrote; train it again"
        ) from cause
