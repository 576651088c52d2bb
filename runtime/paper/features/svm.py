"""One linear SVM per class, and the selection of C on a part of the training images.

Paper: appendix B, "20% of training images were used as a validation set for hyper-parameter
selection".
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.sampler import permutation
from prototxt_gen.errors import DataError, ProtoError
from runtime.paper.features.measures import Scores, Targets

log = logging.getLogger("verydeep.features")

GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
HELD_OUT = 0.2
_MAX_ITER = 10000

Values = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Measure = Callable[[Scores, Targets], float]


@dataclass(frozen=True, eq=False)
class LinearSvm:
    """Decision values X w + b of every class. Shapes: weights (D,K), bias (K,)."""

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def scores(self, values: Values) -> npt.NDArray[np.float64]:
        """Return the decision values. Shapes: values (N,D); result (N,K)."""
        return np.asarray(values @ self.weights + self.bias)


@dataclass(frozen=True)
class Choice:
    """The C with the best result on the held-out images, and the result of each C."""

    C: float
    measured: dict[float, float]


def fit_svm(values: Values, targets: Targets, C: float) -> LinearSvm:
    """Train each class against the rest; images with target 0 are ignored for that class.

    Shapes: values (N,D), targets (N,K).

    Raises:
        DataError: a class has no images, or there are no images of other classes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    weights = np.empty((values.shape[1], targets.shape[1]))
    bias = np.empty(targets.shape[1])
    for k, target in enumerate(targets.T):
        used = target != 0
        rows = np.ascontiguousarray(values[used], np.float64)
        if len(set(target[used].tolist())) < 2:
            raise DataError(
                f"linear SVM: class {k} has {int((target > 0).sum())} training images of "
                f"{int(used.sum())}; expected images of the class and of other classes; use more "
                "training images"
            )
        # The primal and the dual problem have the same solution; solve the smaller one.
        svm = LinearSVC(C=C, dual=rows.shape[0] < rows.shape[1], random_state=0, max_iter=_MAX_ITER)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            svm.fit(rows, target[used])
        if caught:
            log.warning("linear SVM of class %d, C = %g: %s", k, C, caught[0].message)
        weights[:, k], bias[k] = svm.coef_[0], svm.intercept_[0]
    return LinearSvm(weights, bias)


def hold_out(targets: Targets, groups: Sequence[str], seed: int = 0) -> Mask:
    """Select a fifth of the training images as held out, the same for the same list.

    If each image has one class, a fifth of each class is selected. Samples of one group, such as
    the people in one image, are kept together.

    Shapes: targets (N,K); result (N,).
    """
    names = np.array(groups)
    single = bool(np.all((targets > 0).sum(axis=1) == 1) and np.all(targets != 0))
    labels = targets.argmax(axis=1) if single else np.zeros(len(targets), np.int64)
    chosen: set[str] = set()
    for label in range(int(labels.max()) + 1):
        members = list(dict.fromkeys(names[labels == label].tolist()))
        count = max(1, round(HELD_OUT * len(members)))
        chosen.update(members[i] for i in permutation(len(members), seed, label)[:count])
    return np.isin(names, list(chosen))


def choose_c(
    values: Values,
    targets: Targets,
    groups: Sequence[str],
    measure: Measure,
    grid: Sequence[float] = GRID,
    seed: int = 0,
) -> Choice:
    """Choose the C of a grid with the best measure on the held-out images; the smallest of equals.

    Shapes: values (N,D), targets (N,K).

    Raises:
        ProtoError: a C is not positive.
        DataError: a class has too few images.
    """
    if not grid or min(grid) <= 0:
        raise ProtoError(f"C: expected positive numbers, got {list(grid)}; write for example 1,10")
    if len(grid) == 1:
        return Choice(float(grid[0]), {})
    held = hold_out(targets, groups, seed)
    measured = {}
    for C in sorted(map(float, grid)):
        svm = fit_svm(values[~held], targets[~held], C)
        measured[C] = measure(svm.scores(values[held]), targets[held])
    best = max(measured, key=lambda C: measured[C])
    return Choice(best, measured)
