"""Inputs by name, each made to catch something."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Host = npt.NDArray[np.float64]


def make(kind: str, shape: tuple[int, ...], seed: int = 0) -> Host:
    """normal: signs and sizes mixed. distinct: no ties. ties: few values. nan: ties and NaN."""
    rng = np.random.default_rng([seed, *shape])
    count = int(np.prod(shape))
    if kind == "normal":
        return rng.standard_normal(shape)
    if kind == "distinct":
        return rng.permutation(count).reshape(shape) / count - 0.5
    values = rng.integers(-2, 3, shape).astype(np.float64)
    if kind == "nan":
        values[rng.random(shape) < 0.4] = np.nan
    elif kind != "ties":
        raise ValueError(f"no inputs are called {kind}")
    return values


def labels(shape: tuple[int, ...], channels: int, ignore: int | None = None) -> Host:
    """Whole numbers below channels, every third of them the one to ignore."""
    drawn = np.random.default_rng(channels).integers(0, channels, shape).astype(np.float64)
    if ignore is not None:
        drawn.reshape(-1)[::3] = ignore
    return drawn
