"""Memory ops: on this device arrays are numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from prototxt_gen.errors import ShapeError
from runtime.backend.base import HostArray
from runtime.backend.cpu.lanes import aligned_empty


class MemoryOps:
    """See the section "Memory" of Backend."""

    def empty(self, count: int, dtype: np.dtype[Any]) -> HostArray:
        """See Backend.empty."""
        return aligned_empty(count, np.dtype(dtype))

    def view(self, array: HostArray, offset: int, shape: tuple[int, ...]) -> HostArray:
        """See Backend.view."""
        count = 1
        for dim in shape:
            count *= dim
        return array.reshape(-1)[offset : offset + count].reshape(shape)

    def copy_2d(
        self,
        src: HostArray,
        dst: HostArray,
        rows: int,
        cols: int,
        src_at: tuple[int, int],
        dst_at: tuple[int, int],
    ) -> None:
        """See Backend.copy_2d."""
        np.copyto(_runs(dst, rows, cols, dst_at), _runs(src, rows, cols, src_at))


def _runs(array: HostArray, rows: int, cols: int, at: tuple[int, int]) -> HostArray:
    """See `rows` runs of `cols` elements."""
    offset, stride = at
    flat = array.reshape(-1)
    if rows == 0 or cols == 0:
        return flat[:0].reshape(rows, cols)
    end = offset + (rows - 1) * stride + cols
    if offset < 0 or end > flat.size:
        raise ShapeError(
            f"copy_2d: {rows} runs of {cols} elements from {offset} with stride {stride}; "
            f"expected them to end within {flat.size} elements, got {end}; check the shapes"
        )
    span = flat[offset:end]
    return as_strided(span, (rows, cols), (stride * flat.itemsize, flat.itemsize))
