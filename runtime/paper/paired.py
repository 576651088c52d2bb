"""Comparison of two classifiers on the same images.

Sources: McNemar, Psychometrika 12, 1947 (the test); Agresti and Min, Statistics in Medicine 24,
2005 (the interval); Holm, Scandinavian Journal of Statistics 6, 1979 (several tests).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import ShapeError

CONFIDENCE = 0.95
_Z = 1.959963984540054
"""The standard normal quantile of a two-sided interval of 95 %."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """The difference of two errors on the same images, with its interval of 95 %.

    Units: errors and differences as fractions.
    """

    first: float
    second: float
    only_first: int
    """The number of images that only the first classifier gets wrong."""
    only_second: int
    low: float
    high: float
    p_value: float
    """The probability of such a difference, or a larger one, if both classifiers are equal."""

    @property
    def difference(self) -> float:
        """The second error minus the first: positive if the first classifier is better."""
        return self.second - self.first

    @property
    def decided(self) -> bool:
        """Whether the errors differ at 95 % confidence."""
        return self.p_value <= 1 - CONFIDENCE


def compare(first: Flags, second: Flags) -> Comparison:
    """Compare two classifiers by the images that each gets wrong.

    Shapes: first, second (N,).

    Raises:
        ShapeError: the numbers of images differ or are 0.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ShapeError(
            f"comparison: results of {first.shape} and {second.shape} images; expected the same "
            "images for both, at least one"
        )
    images = len(first)
    only_first = int(np.count_nonzero(first & ~second))
    only_second = int(np.count_nonzero(second & ~first))
    low, high = _interval(only_first, only_second, images)
    return Comparison(
        float(first.mean()),
        float(second.mean()),
        only_first,
        only_second,
        low,
        high,
        exact_p_value(only_first, only_second),
    )


def exact_p_value(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test."""
    different = only_first + only_second
    tail = sum(math.comb(different, count) for count in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / (1 << different)))


def _interval(only_first: int, only_second: int, images: int) -> tuple[float, float]:
    """Return the interval of the difference: Wald's, with half an image added to each cell."""
    first, second, count = only_first + 0.5, only_second + 0.5, images + 2.0
    centre = (second - first) / count
    variance = (first + second - (second - first) ** 2 / count) / count**2
    half = _Z * math.sqrt(variance)
    return centre - half, centre + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number by Holm's method, in the same order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as a JSON object. Units: per cent."""
    return {
        "difference": 100 * comparison.difference,
        "interval": [100 * comparison.low, 100 * comparison.high],
        "only_first_wrong": comparison.only_first,
        "only_second_wrong": comparison.only_second,
        "p_value": comparison.p_value,
    }
