"""The arrays of backends, and values that describe how an op reads and computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from prototxt_gen.geometry import ConvGeometry

Array = Any
"""An array of a backend."""
HostArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How a blob is read around one axis: (outer, channels, inner)."""

    outer: int
    channels: int
    inner: int


@dataclass
class ConvPlan:
    """The algorithm of a backend for one convolution, and its workspace.

    The choice depends only on the geometry, not on measured times. `cache` is private to the
    backend, which stores transformed filters there. Units: workspace in bytes.
    """

    geometry: ConvGeometry
    algorithm: str
    workspace_bytes: int
    cache: dict[str, Any]


@dataclass(frozen=True)
class Epilogue:
    """Applied to the sums of a convolution before they are written: + bias, then max(., 0).

    Shapes: bias (K,).
    """

    bias: Array | None = None
    relu: bool = False


@dataclass(frozen=True)
class Draw:
    """The random numbers of one op: sample n of the array uses sample number `first_sample + n`.

    Results do not depend on how a batch is split: see data_prep/philox.py.
    """

    seed: int
    stream: int
    first_sample: int
