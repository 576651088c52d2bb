"""A blob as pycaffe shows it: `.data` and `.diff` are numpy arrays to read and write."""

from __future__ import annotations

from runtime.backend.base import HostArray
from runtime.blob import Blob


class BlobView:
    """What a script sees of a Blob. Caffe: _caffe.cpp (Blob), pycaffe.py."""

    __slots__ = ("blob",)

    def __init__(self, blob: Blob) -> None:
        self.blob = blob

    @property
    def data(self) -> HostArray:
        """The blob's data, shared: writing to it writes the blob."""
        return self.blob.data.exposed_host()

    @property
    def diff(self) -> HostArray:
        """The blob's gradient, shared."""
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
        """Take a new shape: `blob.reshape(1, 3, 224, 224)`."""
        self.blob.reshape(shape)
