"""Which outputs see the input through a given place of their window: slices, no padding made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prototxt_gen.geometry import PoolGeometry

PIECE = 1 << 16
"""Elements of input that one piece of pooling work reads: they stay in a core's cache."""


@dataclass(frozen=True)
class Place:
    """One place (r, s) of the window, for the outputs whose window has it inside the input."""

    number: int
    r: int
    s: int
    inside: tuple[slice, slice]
    """Rows and columns of the input that lie at this place, one for each of `outputs`."""
    outputs: tuple[slice, slice]


def places(geom: PoolGeometry) -> list[Place]:
    """All places of the window in row-major order; those that see only padding are left out."""
    return list(_places(geom))


def _places(geom: PoolGeometry) -> Iterator[Place]:
    for r in range(geom.kernel[0]):
        for s in range(geom.kernel[1]):
            rows = _along(geom.h, geom.p, r, geom.stride[0], geom.pad[0])
            cols = _along(geom.w, geom.q, s, geom.stride[1], geom.pad[1])
            if rows is not None and cols is not None:
                yield Place(r * geom.kernel[1] + s, r, s, (rows[0], cols[0]), (rows[1], cols[1]))


def _along(
    size: int, outputs: int, offset: int, stride: int, pad: int
) -> tuple[slice, slice] | None:
    """Along one axis: the inputs seen at `offset` of the window, and the outputs that see them."""
    first = max(0, -(-(pad - offset) // stride))
    last = min(outputs - 1, (size - 1 + pad - offset) // stride)
    if first > last:
        return None
    start = first * stride - pad + offset
    return slice(start, start + (last - first) * stride + 1, stride), slice(first, last + 1)
