"""Weights in an open file, of any format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import SnapshotError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FileBlob:
    """The shape of one weight blob in a file, and its numbers, which are read on request.

    `label` is the start of error messages.
    """

    label: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def has_diff(self) -> bool:
        """Whether the gradient is in the file and can be read."""
        return False

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a blob of this shape can take the numbers."""
        return self.shape == tuple(shape)

    def check(self) -> None:
        """Check that the numbers are complete.

        Raises:
            SnapshotError: they are not.
        """

    def array(self) -> Array:
        """The numbers as stored.

        Shapes: `shape`.

        Raises:
            SnapshotError: they cannot be read.
        """
        raise NotImplementedError

    def copy_to(self, out: Array) -> None:
        """Copy the numbers into a contiguous array and convert them to its type.

        Shapes: `out` any shape of `count` elements.

        Raises:
            SnapshotError: they cannot be read.
        """
        np.copyto(out.reshape(-1), self.array().reshape(-1), casting="same_kind")

    def copy_diff_to(self, out: Array) -> None:
        """Copy the gradient, like `copy_to`.

        Raises:
            SnapshotError: it cannot be read, or not `has_diff`.
        """
        raise SnapshotError(
            f"{self.label}: has no gradient; expected weights only; read the weights"
        )


@dataclass(frozen=True)
class FileLayer:
    """A layer of an open file, and its blobs by index."""

    name: str
    blobs: Mapping[int, FileBlob]
    leaves_out_shared: bool = False
    """Whether blobs whose weights another layer owns are not in the file, as in HDF5."""
    transposed: bool = False
    """Whether the file notes an InnerProduct layer with `transpose: true`."""
