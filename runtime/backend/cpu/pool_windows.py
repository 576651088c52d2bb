"""Which outputs see the input through a given place of their window: slices, no padding made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from prototxt_gen.geometry import PoolGeometry

PIECE = 1 << 16
"""Elements of input that one piece of pooling work reads: they stay in a core's cache."""


@dataclass(frozen=True)
class Place:
    """One place (r, s) of the window, for the outputs whose window has it inside the input."""

    number: int
    """From 0, in row-major order of those that see an input."""
    r: int
    s: int
    inside: tuple[slice, slice]
    """Rows and columns of the input that lie at this place, one for each of `outputs`."""
    outputs: tuple[slice, slice]


def places(geom: PoolGeometry) -> list[Place]:
    """All places of the window in row-major order; those that see only padding are left out."""
    found = itertools.product(_seen(geom, 0), _seen(geom, 1))
    return [
        Place(number, r, s, (rows[0], cols[0]), (rows[1], cols[1]))
        for number, ((r, rows), (s, cols)) in enumerate(found)
    ]


def _seen(geom: PoolGeometry, axis: int) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """The offsets within the window, along one axis, that some output has inside the input."""
    size, outputs = ((geom.h, geom.p), (geom.w, geom.q))[axis]
    stride, pad, kernel = geom.stride[axis], geom.pad[axis], geom.kernel[axis]
    # A window may be far larger than the input, where the padding or the stride is.
    starts = [pad - output * stride for output in range(outputs)][::-1]
    if stride <= size:
        starts, size_seen = starts[:1], starts[-1] + size - starts[0]
    else:
        size_seen = size
    for start in starts:
        for offset in range(max(start, 0), min(start + size_seen, kernel)):
            slices = _along(size, outputs, offset, stride, pad)
            if slices is not None:
                yield offset, slices


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
