"""The arrays of backends, and how an op reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = Any
"""An array of a backend."""
HostArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How a blob is read around one axis: (outer, channels, inner)."""

    outer: int
    channels: int
    inner: int
