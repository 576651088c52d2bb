"""Blob: an N-dimensional array with its gradient. Caffe: blob.hpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ShapeError
from prototxt_gen.geometry_limits import MAX_AXES, MAX_COUNT
from runtime.backend.base import Backend, Layout
from runtime.core.synced_memory import SyncedMemory
from runtime.process.not_copyable import NotCopyable

_MAX_SPAN = 1 << 59
"""The product of the dimensions that are not 0, for shapes without elements: NumPy's limit."""


class Blob(NotCopyable):
    """Data and diff of one shape, on one backend. Raises ShapeError: see `reshape`.

    Shapes: any; images are (N,C,H,W). Memory is allocated on first access.
    """

    substitute = "copy its values: blob.data.host().copy()"

    def __init__(self, backend: Backend, shape: Sequence[int] = (), name: str = "") -> None:
        self.backend = backend
        self.name = name
        self.data = SyncedMemory(backend)
        self.diff = SyncedMemory(backend)
        self._shape: tuple[int, ...] = (0,)
        if shape or shape == ():
            self.reshape(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def num_axes(self) -> int:
        return len(self._shape)

    def count(self, start: int = 0, end: int | None = None) -> int:
        """The number of elements of the axes start..end-1; without arguments, of all axes."""
        total = 1
        for dim in self._shape[start:end]:
            total *= dim
        return total

    def reshape(self, shape: Sequence[int]) -> None:
        """Set the shape; memory is reallocated only if it is too small.

        Raises:
            ShapeError: a negative dimension, more than 32 axes, or 2^31 or more elements
                (Caffe's limits).
        """
        dims = tuple(int(d) for d in shape)
        if dims == self._shape:
            return
        if len(dims) > MAX_AXES:
            raise ShapeError(
                f"blob '{self.name}': cannot take {len(dims)} axes; expected at most {MAX_AXES}; "
                "merge axes"
            )
        total = span = 1
        for dim in dims:
            total *= dim
            span *= dim or 1
        if any(not 0 <= d <= MAX_COUNT for d in dims) or total > MAX_COUNT or span > _MAX_SPAN:
            raise ShapeError(
                f"blob '{self.name}': cannot take the shape {dims}; expected dimensions of at "
                f"least 0 and at most {MAX_COUNT} elements in total; use a smaller batch"
            )
        try:
            self.data.reshape(dims)
            self.diff.reshape(dims)
        except BaseException:
            # After an interrupt between the two calls, both have the old shape again.
            self.data.reshape(self._shape)
            self.diff.reshape(self._shape)
            raise
        self._shape = dims

    def reshape_like(self, other: Blob) -> None:
        """Set the shape of another blob."""
        self.reshape(other.shape)

    def canonical_axis(self, axis: int, label: str = "") -> int:
        """The index of an axis, which may count from the end; raises ShapeError if out of range."""
        if not -self.num_axes <= axis < self.num_axes:
            raise ShapeError(
                f"{label or self.name}: axis {axis} is out of range; expected "
                f"{-self.num_axes} .. {self.num_axes - 1} for shape {self._shape}"
            )
        return axis + self.num_axes if axis < 0 else axis

    def layout(self, axis: int, label: str = "") -> Layout:
        """The shape as (outer, channels, inner) around an axis; see `canonical_axis`."""
        axis = self.canonical_axis(axis, label)
        return Layout(self.count(0, axis), self._shape[axis], self.count(axis + 1))

    def legacy_shape(self, label: str = "") -> tuple[int, int, int, int]:
        """The shape with trailing 1s up to 4 axes; raises ShapeError if it has more."""
        if self.num_axes > 4:
            raise ShapeError(
                f"{label or self.name}: expected at most 4 axes, got shape {self._shape}"
            )
        n, c, h, w = self._shape + (1,) * (4 - self.num_axes)
        return n, c, h, w

    def share_data(self, other: Blob) -> None:
        """Use another blob's data; raises ShapeError if counts differ. Caffe: Blob::ShareData."""
        self._check_count(other)
        self.data.share(other.data)

    def share_diff(self, other: Blob) -> None:
        """Use another blob's diff; raises ShapeError if counts differ. Caffe: Blob::ShareDiff."""
        self._check_count(other)
        self.diff.share(other.diff)

    def _check_count(self, other: Blob) -> None:
        if self.count() != other.count():
            raise ShapeError(
                f"blob '{self.name}' {self._shape}: cannot share memory with '{other.name}' "
                f"{other.shape}; expected equal counts"
            )

    def __repr__(self) -> str:
        return f"Blob({self.name!r}, {self._shape})"
