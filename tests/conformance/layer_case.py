"""A row of the layers' conformance table, and the definitions that rows share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A layer's text without bottoms and tops, its inputs and what it should give."""

    layer: str
    bottoms: Sequence[Shape]
    expect: Callable[..., Any] | None = None
    given: dict[int, npt.ArrayLike] = field(default_factory=dict)
    """Bottoms whose values matter: labels, selectors, indices."""
    low: float = -1.0
    high: float = 1.0
    kink: float | None = None
    gradients: tuple[int, ...] = (0,)
    """The bottoms that have a gradient."""
    tops: int = 1
    phase: int = 0
    distinct: bool = False
    name: str = ""

    def __str__(self) -> str:
        """Name the row."""
        kind = self.layer.split('"')[1]
        return f"{kind}-{self.name}" if self.name else kind


def softmax(x: Array, axis: int = 1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def batch_norm(x: Array) -> Array:
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    shape = (1, -1, 1, 1)
    return np.asarray((x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5))


def mvn(x: Array, axes: tuple[int, ...], normalize: bool = True) -> Array:
    y = x - x.mean(axis=axes, keepdims=True)
    return (
        np.asarray(y / (np.sqrt((y**2).mean(axis=axes, keepdims=True)) + 1e-9)) if normalize else y
    )


def contrastive(a: Array, b: Array, similar: Array, legacy: bool = False) -> float:
    d2 = ((a - b) ** 2).sum(axis=1)
    apart = np.maximum(2 - d2, 0) if legacy else np.maximum(2 - np.sqrt(d2), 0) ** 2
    return float(np.where(similar > 0, d2, apart).sum() / (2 * len(a)))


def hinge(x: Array, label: Array, power: int) -> float:
    sign = np.ones_like(x)
    sign[np.arange(len(x)), label.astype(int)] = -1
    return float((np.maximum(0, 1 + sign * x) ** power).sum() / len(x))


LABELS = np.array([2, 0, 3])
MATRIX = np.arange(1.0, 17.0).reshape(4, 4) / 7
NCHW = (2, 3, 4, 5)

GAUSSIAN = 'weight_filler { type: "gaussian" } '
BIAS = 'bias_filler { type: "gaussian" } '
XAVIER = 'weight_filler { type: "xavier" } '
