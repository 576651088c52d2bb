"""The limits of the sizes of blobs and windows: the range of Caffe's ints, and at least a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prototxt_gen.errors import ShapeError

MAX_COUNT = 2**31 - 1
"""The most elements of a blob and the longest padded axis."""
MAX_AXES = 32
"""The most axes of a blob. Caffe: kMaxBlobAxes."""


def image_shape(shape: Sequence[int], where: str) -> tuple[int, int, int, int]:
    """N, C, H, W of a bottom; N may be 0.

    Raises:
        ShapeError: the shape has another number of axes, or no channel or pixel.
    """
    if len(shape) != 4:
        raise ShapeError(
            f"{where}: expected a 4-D bottom (N,C,H,W), got shape {tuple(shape)}; "
            "reshape it before this layer"
        )
    n, c, h, w = (int(d) for d in shape)
    if min(c, h, w) < 1:
        raise ShapeError(
            f"{where}: the bottom has no channel or no pixel; expected at least 1 channel of 1x1, "
            f"got shape {tuple(shape)}; change the input's shape"
        )
    return n, c, h, w


def check_extent(
    sizes: Sequence[int], pad: Sequence[int], extent: Sequence[int], where: str
) -> None:
    """Check that the coordinates of windows fit Caffe's ints.

    Raises:
        ShapeError: an axis with its padding or a window is too large.
    """
    for size, before, length in zip(sizes, pad, extent):
        if max(size + 2 * before, length) > MAX_COUNT:
            raise ShapeError(
                f"{where}: a window of {length} on {size} pixels with pad {before} is too large; "
                f"expected at most {MAX_COUNT} along an axis; use a smaller kernel, dilation or pad"
            )


def check_count(name: str, shape: Sequence[int], where: str) -> None:
    """Check that a blob can have a shape.

    Raises:
        ShapeError: it has too many elements.
    """
    if math.prod(shape) > MAX_COUNT:
        raise ShapeError(
            f"{where}: {name} of shape {tuple(shape)} is too large; expected at most {MAX_COUNT} "
            "elements; use a smaller batch, num_output, kernel or pad, or a larger stride"
        )
