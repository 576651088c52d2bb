"""An array in a device's memory: an address with a shape and a dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.errors import ShapeError


class DeviceArray:
    """A C-contiguous array on a device; `owner` is its memory, which views also reference."""

    __slots__ = ("address", "dtype", "owner", "shape", "size")

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: object
    ) -> None:
        self.address = address
        self.shape = shape
        self.dtype = dtype
        self.owner = owner
        size = 1
        for dim in shape:
            size *= dim
        self.size = size

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def view(self, offset: int, shape: tuple[int, ...]) -> DeviceArray:
        """Return the elements from `offset` on as an array of a shape, without a copy.

        Raises:
            ShapeError: the elements are not all within this array.
        """
        part = DeviceArray(
            self.address + offset * self.dtype.itemsize, shape, self.dtype, self.owner
        )
        if offset < 0 or offset + part.size > self.size:
            raise ShapeError(
                f"view: elements {offset} to {offset + part.size} in shape {shape}; expected them "
                f"within an array of {self.size} elements; check offset and shape"
            )
        return part

    def __repr__(self) -> str:
        return f"DeviceArray({self.address:#x}, {self.shape}, {self.dtype})"
