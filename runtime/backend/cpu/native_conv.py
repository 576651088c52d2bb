"""Convolution by the compiled kernels: which algorithm serves each pass, and the calls."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvPlan, HostArray
from runtime.backend.cpu.lanes import aligned_empty
from runtime.backend.cpu.native_library import FLOAT, NativeLibrary, floats
from runtime.backend.cpu.native_signatures import ConvShape

DIRECT = 0
"""Sums taken term by term. Other algorithms are Winograd's F(m x m, 3 x 3), and this is m."""

_NAMES = {DIRECT: "direct", 2: "winograd_2x2", 4: "winograd_4x4"}
# With fewer filters than this the transforms cost more than the products they save.
_FEW_FILTERS = 64
# F(4x4) reads 36/9 of the filters' size, F(2x2) 16/9: with large filters and few tiles that
# decides. The weight gradient goes through sums of that size once more.
_LARGE_FILTERS = 256 * 256
_FEW_TILES = 32
_FEW_TILES_WEIGHT = 48


@dataclass(frozen=True)
class Passes:
    """The algorithm of each pass of one geometry: a function of the geometry alone."""

    forward: int
    backward_data: int
    backward_weight: int

    @classmethod
    def of(cls, geom: ConvGeometry, exact: bool) -> Passes:
        """Choose by table. `exact` wants every sum term by term."""
        if exact or not geom.is_3x3_same or max(geom.pad) > 2:
            return cls(DIRECT, DIRECT, DIRECT)
        few = geom.c * geom.k < _FEW_FILTERS
        outputs = geom.n * -(-geom.p // 4) * -(-geom.q // 4)
        inputs = geom.n * -(-geom.h // 4) * -(-geom.w // 4)
        large = geom.c * geom.k >= _LARGE_FILTERS
        return cls(
            DIRECT if few else 2 if large and outputs < _FEW_TILES else 4,
            2 if large and inputs < _FEW_TILES else 4,
            DIRECT if few else 2 if large and outputs < _FEW_TILES_WEIGHT else 4,
        )

    def __str__(self) -> str:
        names = [_NAMES[m] for m in (self.forward, self.backward_data, self.backward_weight)]
        return names[0] if len(set(names)) == 1 else "/".join(names)


def plan_native(
    library: NativeLibrary, geom: ConvGeometry, exact: bool, passes: Passes | None = None
) -> ConvPlan:
    """See Backend.plan_conv. The workspace is the largest of the three passes'.

    `passes` overrules the table; Winograd's algorithms serve 3x3 at stride 1 with a pad up to 2.
    """
    passes, shape = passes or Passes.of(geom, exact), ConvShape.of(geom)
    sizes = (
        _pass_bytes(library, passes.forward, shape, 0),
        _pass_bytes(library, passes.backward_data, shape, 1),
        _weight_bytes(library, passes.backward_weight, shape),
    )
    cache = {"passes": passes, "shape": shape, "bytes": sizes}
    return ConvPlan(geom, f"native:{passes}", max(sizes), cache)


def _pass_bytes(library: NativeLibrary, m: int, shape: ConvShape, backward: int) -> int:
    if m == DIRECT:
        return library.count("conv_bytes", shape, backward, library.threads)
    return library.count("winograd_bytes", m, shape, backward, library.threads)


def _weight_bytes(library: NativeLibrary, m: int, shape: ConvShape) -> int:
    if m == DIRECT:
        return library.count("conv_weight_bytes", shape, library.threads)
    return library.count("winograd_weight_bytes", m, shape, library.threads)


class NativeConvolution:
    """See the section "Convolution" of Backend. `exact` wants every sum taken term by term."""

    def __init__(self, library: NativeLibrary, exact: bool = False) -> None:
        self._library = library
        self._exact = exact

    def plan(self, geom: ConvGeometry) -> ConvPlan:
        """See Backend.plan_conv."""
        return plan_native(self._library, geom, self._exact)

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        bias: HostArray | None,
        y: HostArray,
        weight_version: int | None,
        relu: bool,
    ) -> None:
        """See Backend.conv_forward."""
        geom, where = plan.geometry, "conv_forward"
        m, size = plan.cache["passes"].forward, plan.cache["bytes"][0]
        source = floats(f"{where}: x", x, _count(geom.in_shape))
        target = floats(f"{where}: y", y, _count(geom.out_shape))
        offset = None if bias is None else floats(f"{where}: bias", bias, geom.k)
        shape, space = ctypes.byref(plan.cache["shape"]), self._library.workspace(size)
        if m == DIRECT:
            filters = floats(f"{where}: weight", weight, _count(geom.weight_shape))
            self._library.run("conv_forward", shape, source, filters, offset, relu, target, space)
            return
        filters = self._filters(plan, m, weight, weight_version, backward=False)
        self._library.run("winograd", m, shape, 0, source, filters, offset, relu, target, space)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        """See Backend.conv_backward_data."""
        geom, where = plan.geometry, "conv_backward_data"
        m, size = plan.cache["passes"].backward_data, plan.cache["bytes"][1]
        source = floats(f"{where}: dy", dy, _count(geom.out_shape))
        target = floats(f"{where}: dx", dx, _count(geom.in_shape))
        shape, space = ctypes.byref(plan.cache["shape"]), self._library.workspace(size)
        if m == DIRECT:
            filters = floats(f"{where}: weight", weight, _count(geom.weight_shape))
            self._library.run("conv_backward_data", shape, source, filters, target, space)
            return
        filters = self._filters(plan, m, weight, weight_version, backward=True)
        self._library.run("winograd", m, shape, 1, source, filters, None, 0, target, space)

    def backward_weight(self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray) -> None:
        """See Backend.conv_backward_weight."""
        geom, where = plan.geometry, "conv_backward_weight"
        m, size = plan.cache["passes"].backward_weight, plan.cache["bytes"][2]
        operands = (
            floats(f"{where}: x", x, _count(geom.in_shape)),
            floats(f"{where}: dy", dy, _count(geom.out_shape)),
            floats(f"{where}: dw", dw, _count(geom.weight_shape)),
            self._library.workspace(size),
        )
        shape = ctypes.byref(plan.cache["shape"])
        if m == DIRECT:
            self._library.run("conv_backward_weight", shape, *operands)
        else:
            self._library.run("winograd_weight", m, shape, *operands)

    def _filters(
        self, plan: ConvPlan, m: int, weight: HostArray, version: int | None, backward: bool
    ) -> int:
        """Transformed filters, kept in the plan for their version; their address."""
        geom, name = plan.geometry, "turned" if backward else "filters"
        inputs, outputs = (geom.k, geom.c) if backward else (geom.c, geom.k)
        kept = plan.cache.get(name)
        if kept is None:
            count = self._library.count("winograd_filter_floats", m, inputs, outputs)
            kept = (None, aligned_empty(count, FLOAT))
        filters: HostArray = kept[1]
        where = floats("transformed filters", filters, filters.size)
        if version is None or kept[0] != version:
            source = floats("convolution: weight", weight, _count(geom.weight_shape))
            self._library.run("winograd_filter", m, source, geom.k, geom.c, backward, where)
        plan.cache[name] = (version, filters)
        return where


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))
