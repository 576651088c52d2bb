"""Local response normalisation across channels."""

from __future__ import annotations

from prototxt_gen.geometry import LRNGeometry
from runtime.backend.base import LRNOps
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.known_answers import LRN_OF_5
from runtime.backend.cuda.launcher import Arguments, Launcher, blocks, expect_size

_MOST_SEGMENTS = 65535


class CudaLRN(LRNOps):
    """LRNOps by CUDA kernels."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def forward(
        self, geom: LRNGeometry, x: DeviceArray, scale: DeviceArray, y: DeviceArray
    ) -> None:
        _expect("lrn_forward", geom, x, scale, y)
        values = (geom.alpha / geom.size, geom.beta, geom.k)
        self._run(geom, "forward", (x, scale, y), values)

    def backward(
        self,
        geom: LRNGeometry,
        x: DeviceArray,
        y: DeviceArray,
        scale: DeviceArray,
        dy: DeviceArray,
        dx: DeviceArray,
    ) -> None:
        _expect("lrn_backward", geom, x, y, scale, dy, dx)
        values = (2.0 * geom.alpha * geom.beta / geom.size, geom.beta)
        self._run(geom, "backward", (x, y, scale, dy, dx), values)

    def _run(
        self,
        geom: LRNGeometry,
        which: str,
        arrays: tuple[DeviceArray, ...],
        values: tuple[float, ...],
    ) -> None:
        launcher, inner, count = self._launcher, geom.h * geom.w, arrays[0].size
        segments = geom.n * blocks(geom.c, launcher.constant("lrn", "WALK"))
        walks = geom.size == launcher.constant("lrn", "WINDOW") and segments <= _MOST_SEGMENTS
        if walks and launcher.usable(LRN_OF_5):
            grid = (blocks(inner, launcher.constant("lrn", "BLOCK")), segments, 1)
            launcher.run("lrn", f"lrn_5_{which}", grid, (*arrays, geom.c, inner, *values))
            return
        args: Arguments = (*arrays, count, geom.c, inner, geom.size, *values)
        launcher.elementwise("lrn", f"lrn_{which}", count, args, 1)


def _expect(op: str, geom: LRNGeometry, *arrays: DeviceArray) -> None:
    for array in arrays:
        expect_size(op, array, (geom.n, geom.c, geom.h, geom.w))
