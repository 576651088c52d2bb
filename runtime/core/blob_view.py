"""Blobs in the form of pycaffe: `.data` and `.diff` are NumPy arrays to read and write."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import overload

from prototxt_gen.errors import ShapeError
from runtime.backend.base import Backend, HostArray
from runtime.core.blob import Blob
from runtime.process.not_copyable import NotCopyable


class BlobView(NotCopyable):
    """A Blob in the form of pycaffe, for scripts and Python layers. Caffe: _caffe.cpp (Blob)."""

    __slots__ = ("blob",)
    substitute = "copy its values: blob.data.copy()"

    def __init__(self, blob: Blob) -> None:
        self.blob = blob

    @property
    def data(self) -> HostArray:
        """The blob's data, without a copy: writing to the array writes to the blob.

        Shapes: the blob's.
        """
        return self.blob.data.exposed_host()

    @property
    def diff(self) -> HostArray:
        """The blob's gradient, without a copy.

        Shapes: the blob's.
        """
        return self.blob.diff.exposed_host()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.blob.shape

    @property
    def num(self) -> int:
        return self.blob.legacy_shape()[0]

    @property
    def channels(self) -> int:
        return self.blob.legacy_shape()[1]

    @property
    def height(self) -> int:
        return self.blob.legacy_shape()[2]

    @property
    def width(self) -> int:
        return self.blob.legacy_shape()[3]

    @property
    def count(self) -> int:
        return self.blob.count()

    def reshape(self, *shape: int) -> None:
        """Set the shape: `blob.reshape(1, 3, 224, 224)`.

        Raises:
            ShapeError: a dimension is not an integer of at least 0, or there are too many elements.
        """
        if not all(hasattr(dim, "__index__") for dim in shape):
            raise ShapeError(
                f"blob '{self.blob.name}': cannot take the shape {shape}; expected one integer "
                "per dimension, such as reshape(1, 3, 224, 224); for a tuple: reshape(*shape)"
            )
        self.blob.reshape(shape)

    def __repr__(self) -> str:
        return f"Blob({self.blob.name!r}, {self.shape})"

    def _repr_html_(self) -> str:
        shape = " x ".join(map(str, self.shape)) or "scalar"
        return f"<p>Blob <b>{html.escape(self.blob.name)}</b>: {shape}</p>"


class BlobVec(NotCopyable, Sequence[BlobView]):
    """The weight blobs of a layer; the setup of a Python layer may add some. Caffe: BlobVec."""

    substitute = "copy the values: [blob.data.copy() for blob in blobs]"

    def __init__(self, blobs: list[Blob], backend: Backend, label: str = "blobs") -> None:
        """Wrap the blob list of a layer; blobs are added to that list."""
        self._blobs = blobs
        self._backend = backend
        self._label = label

    def add_blob(self, *shape: int) -> None:
        """Add a blob of zeros: `self.blobs.add_blob(64, 3)`.

        Raises:
            ShapeError: see BlobView.reshape.
        """
        view = BlobView(Blob(self._backend, (), f"{self._label}[{len(self._blobs)}]"))
        view.reshape(*shape)
        self._blobs.append(view.blob)

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"

    @overload
    def __getitem__(self, index: int) -> BlobView: ...
    @overload
    def __getitem__(self, index: slice) -> list[BlobView]: ...
    def __getitem__(self, index: int | slice) -> BlobView | list[BlobView]:
        if isinstance(index, slice):
            return [BlobView(blob) for blob in self._blobs[index]]
        return BlobView(self._blobs[index])

    def __len__(self) -> int:
        return len(self._blobs)

    def __iter__(self) -> Iterator[BlobView]:
        return map(BlobView, self._blobs)
