"""Convolution by the compiled kernels."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvOps, ConvPlan, Epilogue, HostArray
from runtime.backend.conv_empty import EMPTY, EmptyConvolution, is_empty
from runtime.backend.cpu.lanes import aligned_empty
from runtime.backend.cpu.native_library import FLOAT, NativeLibrary, address, floats
from runtime.backend.cpu.native_memory import NativeMemory
from runtime.backend.cpu.native_neurons import NativeNeurons
from runtime.backend.cpu.native_plan import DEPTHWISE, DIRECT, ROWS, Calls, plan_native
from runtime.backend.cpu.native_products import NativeProducts

_TERM_BY_TERM = {
    DIRECT: "conv_forward",
    ROWS: "conv_rows_forward",
    DEPTHWISE: "depthwise_forward",
}
_DATA_TERM_BY_TERM = {DIRECT: "conv_backward_data", DEPTHWISE: "depthwise_backward_data"}
_WEIGHT_TERM_BY_TERM = {
    DIRECT: "conv_backward_weight",
    ROWS: "conv_rows_weight",
    DEPTHWISE: "depthwise_backward_weight",
}


@dataclass
class Kept:
    """Transformed filters of one direction, and the version of their weights.

    `filters` is None until a version is requested twice: in training, weights change between
    passes, and keeping the filters would only cost memory.

    Once a tape has recorded the address of `filters`, they are replaced and never overwritten: the
    same address on two tapes means the same filters.
    """

    version: int | None = None
    filters: HostArray | None = None
    filled: bool = False
    recorded: bool = False


class NativeConvolution(ConvOps):
    """ConvOps by the compiled kernels. `exact` excludes Winograd's algorithms."""

    def __init__(self, library: NativeLibrary, exact: bool = False) -> None:
        self._library = library
        self._exact = exact
        self._empty = EmptyConvolution(
            NativeMemory(library), NativeProducts(library), NativeNeurons(library)
        )

    def plan(self, geom: ConvGeometry) -> ConvPlan:
        if is_empty(geom):
            return ConvPlan(geom, EMPTY, 0, {})
        return plan_native(self._library, geom, self._exact)

    def forward(
        self,
        plan: ConvPlan,
        x: HostArray,
        weight: HostArray,
        epilogue: Epilogue,
        y: HostArray,
        weight_version: int | None,
    ) -> None:
        if plan.algorithm == EMPTY:
            self._empty.forward(plan, x, weight, epilogue, y, weight_version)
            return
        geom, op = plan.geometry, "conv_forward"
        calls: Calls = plan.cache["calls"]
        source = floats(f"{op}: x", x, math.prod(geom.in_shape))
        target = floats(f"{op}: y", y, math.prod(geom.out_shape))
        bias, relu = epilogue.bias, epilogue.relu
        offset = None if bias is None else floats(f"{op}: bias", bias, geom.k)
        raw = floats(f"{op}: weight", weight, math.prod(geom.weight_shape))
        shape, m = ctypes.byref(calls.shape), calls.passes.forward
        with self._library.workspace(calls.forward.total) as space:
            if m in _TERM_BY_TERM:
                kernel = _TERM_BY_TERM[m]
                self._library.run(kernel, shape, source, raw, offset, relu, target, space)
                return
            spare = (space + calls.forward.scratch, calls.forward.filters)
            filters = self._filters(plan, m, spare, raw, weight_version, backward=False)
            self._library.run("winograd", m, shape, 0, source, filters, offset, relu, target, space)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: HostArray,
        weight: HostArray,
        dx: HostArray,
        weight_version: int | None,
    ) -> None:
        if plan.algorithm == EMPTY:
            self._empty.backward_data(plan, dy, weight, dx, weight_version)
            return
        geom, op = plan.geometry, "conv_backward_data"
        calls: Calls = plan.cache["calls"]
        source = floats(f"{op}: dy", dy, math.prod(geom.out_shape))
        target = floats(f"{op}: dx", dx, math.prod(geom.in_shape))
        raw = floats(f"{op}: weight", weight, math.prod(geom.weight_shape))
        shape, m = ctypes.byref(calls.shape), calls.passes.backward_data
        with self._library.workspace(calls.backward_data.total) as space:
            if m in _DATA_TERM_BY_TERM:
                self._library.run(_DATA_TERM_BY_TERM[m], shape, source, raw, target, space)
                return
            spare = (space + calls.backward_data.scratch, calls.backward_data.filters)
            filters = self._filters(plan, m, spare, raw, weight_version, backward=True)
            self._library.run("winograd", m, shape, 1, source, filters, None, 0, target, space)

    def backward_weight(self, plan: ConvPlan, x: HostArray, dy: HostArray, dw: HostArray) -> None:
        if plan.algorithm == EMPTY:
            return
        geom, op = plan.geometry, "conv_backward_weight"
        calls: Calls = plan.cache["calls"]
        operands = (
            floats(f"{op}: x", x, math.prod(geom.in_shape)),
            floats(f"{op}: dy", dy, math.prod(geom.out_shape)),
            floats(f"{op}: dw", dw, math.prod(geom.weight_shape)),
        )
        shape, m = ctypes.byref(calls.shape), calls.passes.backward_weight
        with self._library.workspace(calls.backward_weight.total) as space:
            if m in _TERM_BY_TERM:
                self._library.run(_WEIGHT_TERM_BY_TERM[m], shape, *operands, space)
            else:
                self._library.run("winograd_weight", m, shape, *operands, space)

    def _filters(
        self,
        plan: ConvPlan,
        m: int,
        spare: tuple[int, int],
        weight: int,
        version: int | None,
        backward: bool,
    ) -> int:
        """The address of transformed filters, cached or computed in `spare` (address, bytes)."""
        kept: Kept = plan.cache.setdefault("rotated" if backward else "filters", Kept())
        again = version is not None and version == kept.version
        if again and kept.filled and kept.filters is not None:
            kept.recorded = self._library.keep(kept.filters) or kept.recorded
            return address(kept.filters)
        if kept.recorded:
            kept.filters, kept.recorded = None, False
        if again and kept.filters is None:
            kept.filters = aligned_empty(spare[1] // FLOAT.itemsize, FLOAT)
        target, kept.filled = spare[0], False
        if kept.filters is not None and (again or not self._library.is_recording):
            # A program that repeats this would overwrite the filters of another version.
            self._library.prevent_replay()
            target, kept.filled = address(kept.filters), True
        geom: ConvGeometry = plan.geometry
        self._library.run("winograd_filter", m, weight, geom.k, geom.c, backward, target)
        kept.version = version
        return target
