"""The one tolerance formula."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def tolerance(dtype: npt.DTypeLike, length: int, scale: float, factor: float = 1.0) -> float:
    """factor * eps(dtype) * sqrt(length) * scale.

    `length` counts the terms of the longest sum behind a result, `scale` is the size of its largest
    term: rounding errors of n terms add up like a random walk. `factor` is 1 unless the algorithm
    itself loses digits, and then the test gives the reason.
    """
    return factor * float(np.finfo(dtype).eps) * math.sqrt(max(1, length)) * scale


def assert_close(
    what: str,
    got: npt.ArrayLike,
    want: npt.ArrayLike,
    length: int,
    scale: float,
    factor: float = 1.0,
) -> None:
    """Hold `got` (its dtype sets eps) to `want`; NaN and infinity must be in the same places."""
    actual, wanted = np.asarray(got), np.asarray(want, np.float64)
    assert actual.shape == wanted.shape, f"{what}: shape {actual.shape}, expected {wanted.shape}"
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(actual[~finite], wanted[~finite], err_msg=what)
    errors = np.where(finite, np.abs(actual.astype(np.float64) - wanted), 0.0)
    errors[np.isnan(errors)] = np.inf
    allowed = tolerance(actual.dtype, length, scale, factor)
    worst = float(errors.max(initial=0.0))
    assert worst <= allowed, (
        f"{what}: off by {worst:.3g} at {np.unravel_index(errors.argmax(), errors.shape)}, "
        f"allowed {allowed:.3g}"
    )
