"""The choice of a compiled algorithm for each pass of a convolution, and the memory it needs."""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_gen.geometry import ConvGeometry
from prototxt_gen.integers import ceil_div
from runtime.backend.base import ConvPlan
from runtime.backend.cpu.native_library import NativeLibrary
from runtime.backend.cpu.native_signatures import ConvShape

DIRECT, ROWS, DEPTHWISE = 0, 1, 3
"""Direct algorithms: from gathered columns, row by row if there are few inputs, or channel by
channel if a filter reads one channel. Other values m are Winograd's F(m x m, 3 x 3)."""

_NAMES = {
    DIRECT: "direct",
    ROWS: "rows",
    DEPTHWISE: "depthwise",
    2: "winograd_2x2",
    4: "winograd_4x4",
}
_PLANES = {2: 16, 4: 36}
# With so few channels, copying rows is faster than gathering columns.
_FEW_CHANNELS = 4
# With more outputs, the rows of the gradient are read too often.
_FEW_OUTPUTS = 32
# With fewer filters, the transforms cost more than they save in products.
_FEW_FILTERS = 64
# F(4x4) reads 36/9 of the size of the filters, F(2x2) 16/9, which dominates with large filters and
# few tiles. The weight gradient reads sums of that size once more.
_LARGE_FILTERS = 256 * 256
_FEW_TILES = 32
_FEW_TILES_WEIGHT = 48
# The maximum size of transformed filters, or of the sums of a weight gradient, in bytes.
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Passes:
    """The algorithm of each pass for one geometry."""

    forward: int
    backward_data: int
    backward_weight: int

    @classmethod
    def of(cls, geom: ConvGeometry, exact: bool) -> Passes:
        """Choose for a geometry. `exact` excludes Winograd's algorithms."""
        if geom.group == geom.c and geom.c > 1:
            return cls(DEPTHWISE, DEPTHWISE, DEPTHWISE)
        if not geom.is_3x3_same or max(geom.pad) > 2:
            return cls(DIRECT, DIRECT, DIRECT)
        rows = geom.c <= _FEW_CHANNELS
        if exact:
            return cls(ROWS if rows else DIRECT, DIRECT, ROWS if rows else DIRECT)
        filters = geom.c * geom.k
        outputs = geom.n * ceil_div(geom.p, 4) * ceil_div(geom.q, 4)
        inputs = geom.n * ceil_div(geom.h, 4) * ceil_div(geom.w, 4)
        few = filters < _FEW_FILTERS
        forward = DIRECT if few else _tile(filters, outputs, _FEW_TILES)
        weight = DIRECT if few else _tile(filters, outputs, _FEW_TILES_WEIGHT)
        if rows:
            forward = ROWS
            weight = ROWS if geom.k <= _FEW_OUTPUTS else weight
        return cls(forward, _tile(filters, inputs, _FEW_TILES), weight)

    def __str__(self) -> str:
        names = [_NAMES[m] for m in (self.forward, self.backward_data, self.backward_weight)]
        return names[0] if len(set(names)) == 1 else "/".join(names)


def _tile(filters: int, tiles: int, few_tiles: int) -> int:
    """The side of Winograd's tiles, or DIRECT if the transformed filters would be too large."""
    sides = (2,) if filters >= _LARGE_FILTERS and tiles < few_tiles else (4, 2)
    return next((m for m in sides if 4 * filters * _PLANES[m] <= _MOST_BYTES), DIRECT)


@dataclass(frozen=True)
class Memory:
    """The memory of one pass; `filters` is 0 if weights are not transformed. Units: bytes."""

    scratch: int
    filters: int

    @property
    def total(self) -> int:
        return self.scratch + self.filters


@dataclass(frozen=True)
class Calls:
    """The arguments of the kernels for one geometry."""

    passes: Passes
    shape: ConvShape
    forward: Memory
    backward_data: Memory
    backward_weight: Memory


def plan_native(
    library: NativeLibrary, geom: ConvGeometry, exact: bool, passes: Passes | None = None
) -> ConvPlan:
    """See ConvOps.plan. The workspace is the largest of the three passes.

    `passes` replaces the choice; Winograd's algorithms are for 3x3 at stride 1 with a pad up to 2.
    """
    passes, shape = passes or Passes.of(geom, exact), ConvShape.of(geom)
    calls = Calls(
        passes,
        shape,
        _memory(library, passes.forward, shape, backward=False),
        _memory(library, passes.backward_data, shape, backward=True),
        _weight_memory(library, passes.backward_weight, shape),
    )
    most = max(m.total for m in (calls.forward, calls.backward_data, calls.backward_weight))
    return ConvPlan(geom, f"native:{passes}", most, {"calls": calls})


def _memory(library: NativeLibrary, m: int, shape: ConvShape, backward: bool) -> Memory:
    if m == ROWS:
        return Memory(library.count("conv_rows_bytes", shape, False, library.threads), 0)
    if m == DEPTHWISE:
        return Memory(library.count("depthwise_bytes", shape, backward, library.threads), 0)
    if m == DIRECT:
        return Memory(library.count("conv_bytes", shape, backward, library.threads), 0)
    inputs, outputs = (shape.k, shape.c) if backward else (shape.c, shape.k)
    return Memory(
        library.count("winograd_bytes", m, shape, backward, library.threads),
        4 * library.count("winograd_filter_floats", m, inputs, outputs),
    )


def _weight_memory(library: NativeLibrary, m: int, shape: ConvShape) -> Memory:
    if m == ROWS:
        return Memory(library.count("conv_rows_bytes", shape, True, library.threads), 0)
    if m == DEPTHWISE:
        return Memory(library.count("depthwise_bytes", shape, False, library.threads), 0)
    if m == DIRECT:
        return Memory(library.count("conv_weight_bytes", shape, library.threads), 0)
    return Memory(library.count("winograd_weight_bytes", m, shape, library.threads), 0)
