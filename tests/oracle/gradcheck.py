"""Gradients against two-sided differences. Caffe: test_gradient_check_util.hpp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

STEP = 1e-4
THRESHOLD = 1e-6


def numeric_gradient(objective: Callable[[], float], x: Array, step: float = STEP) -> Array:
    """Differentiate `objective`, which reads x, by changing x element after element in place."""
    gradient = np.zeros(x.shape)
    for at in np.ndindex(*x.shape):
        kept = x[at]
        x[at] = kept + step
        above = objective()
        x[at] = kept - step
        below = objective()
        x[at] = kept
        gradient[at] = (above - below) / (2.0 * step)
    return gradient


def check_gradient(
    what: str,
    objective: Callable[[], float],
    x: Array,
    gradient: npt.ArrayLike,
    step: float = STEP,
    threshold: float = THRESHOLD,
    kink: float | None = None,
) -> None:
    """Hold a gradient to its numeric estimate, relative where it is above 1.

    A function with a corner (ReLU) has no derivative there: elements whose value lies within two
    steps of `kink` are left out. Something must be left to check.
    """
    estimate = numeric_gradient(objective, x, step)
    computed = np.asarray(gradient, np.float64)
    assert computed.shape == x.shape, f"{what}: shape {computed.shape}, expected {x.shape}"
    smooth = np.ones(x.shape, np.bool_) if kink is None else np.abs(x - kink) > 2.0 * step
    assert smooth.any(), f"{what}: every element lies at the kink {kink}"
    size = np.maximum(1.0, np.maximum(np.abs(estimate), np.abs(computed)))
    wrong = smooth & ~(np.abs(estimate - computed) <= threshold * size)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: gradient at {at} is {computed[at]:.9g}, differences give {estimate[at]:.9g}; "
            f"{int(wrong.sum())} of {x.size} elements are off"
        )
