"""Local response normalisation by the compiled kernels."""

from __future__ import annotations

from prototxt_gen.geometry import LRNGeometry
from runtime.backend.base import HostArray, LRNOps
from runtime.backend.cpu.native_library import NativeLibrary, Workspace, floats


class NativeLRN(LRNOps):
    """LRNOps by the compiled kernels."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

    def forward(self, geom: LRNGeometry, x: HostArray, scale: HostArray, y: HostArray) -> None:
        n = geom.n * geom.c * geom.h * geom.w
        operands = (
            floats("lrn_forward: x", x, n),
            floats("lrn_forward: scale", scale, n),
            floats("lrn_forward: y", y, n),
        )
        sizes = (geom.n, geom.c, geom.h * geom.w, geom.size)
        numbers = (geom.alpha, geom.beta, geom.k)
        with self._space(geom) as space:
            self._library.run("lrn_forward", *sizes, *numbers, *operands, space)

    def backward(
        self,
        geom: LRNGeometry,
        x: HostArray,
        y: HostArray,
        scale: HostArray,
        dy: HostArray,
        dx: HostArray,
    ) -> None:
        n = geom.n * geom.c * geom.h * geom.w
        operands = (
            floats("lrn_backward: x", x, n),
            floats("lrn_backward: y", y, n),
            floats("lrn_backward: scale", scale, n),
            floats("lrn_backward: dy", dy, n),
            floats("lrn_backward: dx", dx, n),
        )
        sizes = (geom.n, geom.c, geom.h * geom.w, geom.size)
        with self._space(geom) as space:
            self._library.run("lrn_backward", *sizes, geom.alpha, geom.beta, *operands, space)

    def _space(self, geom: LRNGeometry) -> Workspace:
        size = self._library.count("lrn_bytes", geom.c, self._library.threads)
        return self._library.workspace(size)
