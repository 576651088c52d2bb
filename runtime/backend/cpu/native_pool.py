"""Max and average pooling by the compiled kernels."""

from __future__ import annotations

import ctypes

import numpy as np

from prototxt_gen.geometry import PoolGeometry
from runtime.backend.base import HostArray, PoolOps
from runtime.backend.cpu.native_library import NativeLibrary, elements, floats
from runtime.backend.cpu.native_signatures import PoolShape

_INDEX = np.dtype(np.int32)


class NativePool(PoolOps):
    """PoolOps by the compiled kernels."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

    def max_forward(self, geom: PoolGeometry, x: HostArray, y: HostArray, mask: HostArray) -> None:
        inputs, outputs = _sizes(geom)
        operands = (
            floats("max_pool_forward: x", x, inputs),
            floats("max_pool_forward: y", y, outputs),
            elements("max_pool_forward: mask", mask, outputs, _INDEX),
        )
        self._library.run("max_pool_forward", ctypes.byref(PoolShape.of(geom)), *operands)

    def max_backward(
        self, geom: PoolGeometry, dy: HostArray, mask: HostArray, dx: HostArray
    ) -> None:
        inputs, outputs = _sizes(geom)
        operands = (
            floats("max_pool_backward: dy", dy, outputs),
            elements("max_pool_backward: mask", mask, outputs, _INDEX),
            floats("max_pool_backward: dx", dx, inputs),
        )
        self._library.run("max_pool_backward", ctypes.byref(PoolShape.of(geom)), *operands)

    def ave_forward(self, geom: PoolGeometry, x: HostArray, y: HostArray) -> None:
        inputs, outputs = _sizes(geom)
        operands = (
            floats("ave_pool_forward: x", x, inputs),
            floats("ave_pool_forward: y", y, outputs),
        )
        self._library.run("ave_pool_forward", ctypes.byref(PoolShape.of(geom)), *operands)

    def ave_backward(self, geom: PoolGeometry, dy: HostArray, dx: HostArray) -> None:
        inputs, outputs = _sizes(geom)
        operands = (
            floats("ave_pool_backward: dy", dy, outputs),
            floats("ave_pool_backward: dx", dx, inputs),
        )
        self._library.run("ave_pool_backward", ctypes.byref(PoolShape.of(geom)), *operands)


def _sizes(geom: PoolGeometry) -> tuple[int, int]:
    planes = geom.n * geom.c
    return planes * geom.h * geom.w, planes * geom.p * geom.q
