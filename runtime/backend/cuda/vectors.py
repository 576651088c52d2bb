"""Vectors of any shape, their sums, and the update of the weights."""

from __future__ import annotations

import numpy as np

from runtime.backend.base import VectorOps
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import Launcher, blocks, expect_same_size


class CudaVectors(VectorOps):
    """VectorOps by CUDA kernels."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def axpy(self, alpha: float, x: DeviceArray, y: DeviceArray) -> None:
        count = expect_same_size("axpy", x, y)
        self._launcher.elementwise("vectors", "axpy", count, (x, y, count, alpha))

    def scal(self, alpha: float, x: DeviceArray) -> None:
        self._launcher.elementwise("vectors", "scal", x.size, (x, x.size, alpha))

    def sub(self, x: DeviceArray, y: DeviceArray, out: DeviceArray) -> None:
        count = expect_same_size("sub", x, y, out)
        self._launcher.elementwise("vectors", "sub", count, (x, y, out, count))

    def asum(self, x: DeviceArray) -> float:
        return self._sum("asum_pieces", x)

    def sumsq(self, x: DeviceArray) -> float:
        return self._sum("dot_pieces", x, x)

    def dot(self, x: DeviceArray, y: DeviceArray) -> float:
        expect_same_size("dot", x, y)
        return self._sum("dot_pieces", x, y)

    def _sum(self, kernel: str, *vectors: DeviceArray) -> float:
        launcher, count = self._launcher, vectors[0].size
        pieces = blocks(count, launcher.constant("sums", "PIECE"))
        partial, place = launcher.scratch(pieces, 2)
        total = DeviceArray(place.address, (1,), np.dtype(np.float64), place.owner)
        launcher.run("sums", kernel, pieces, (*vectors, partial, count))
        launcher.run("sums", "sum_up", 1, (partial, total, pieces))
        result = np.empty(1, np.float64)
        launcher.driver.download(total.address, result)
        return float(result[0])

    def sgd_update(
        self,
        w: DeviceArray,
        dw: DeviceArray,
        history: DeviceArray,
        lr: float,
        momentum: float,
        decay: float,
    ) -> None:
        count = expect_same_size("sgd_update", w, dw, history)
        place = self._launcher.replayed_rate(lr)
        argument = lr if place is None else 0.0
        args = (dw, w, history, count, argument, momentum, decay, place)
        self._launcher.elementwise("sgd_update", "sgd_update", count, args)
