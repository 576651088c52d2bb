"""Max and average pooling."""

from __future__ import annotations

from prototxt_gen.geometry import PoolGeometry
from runtime.backend.base import PoolOps
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.known_answers import POOL_BY_HALF
from runtime.backend.cuda.launcher import Arguments, Launcher, expect_size

# A thread computes two neighbouring outputs.
_PAIR = 2


class CudaPool(PoolOps):
    """PoolOps by CUDA kernels."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def max_forward(
        self, geom: PoolGeometry, x: DeviceArray, y: DeviceArray, mask: DeviceArray
    ) -> None:
        _expect("max_pool_forward", geom, (x,), (y, mask))
        if self._halves(geom):
            args: Arguments = (x, y, mask, y.size // _PAIR, geom.p, geom.q)
            self._launcher.elementwise("max_pool", "max_pool_2x2_forward", y.size, args, _PAIR)
            return
        args = (x, y, mask, y.size, *_sizes(geom))
        self._launcher.elementwise("max_pool", "max_pool_forward", y.size, args, 1)

    def max_backward(
        self, geom: PoolGeometry, dy: DeviceArray, mask: DeviceArray, dx: DeviceArray
    ) -> None:
        _expect("max_pool_backward", geom, (dx,), (dy, mask))
        if self._halves(geom):
            args: Arguments = (dy, mask, dx, dy.size // _PAIR, geom.p, geom.q)
            self._launcher.elementwise("max_pool", "max_pool_2x2_backward", dy.size, args, _PAIR)
            return
        args = (dy, mask, dx, dx.size, *_sizes(geom))
        self._launcher.elementwise("max_pool", "max_pool_backward", dx.size, args, 1)

    def _halves(self, geom: PoolGeometry) -> bool:
        return _is_halving(geom) and self._launcher.usable(POOL_BY_HALF)

    def ave_forward(self, geom: PoolGeometry, x: DeviceArray, y: DeviceArray) -> None:
        _expect("ave_pool_forward", geom, (x,), (y,))
        args: Arguments = (x, y, y.size, *_sizes(geom))
        self._launcher.elementwise("ave_pool", "ave_pool_forward", y.size, args, 1)

    def ave_backward(self, geom: PoolGeometry, dy: DeviceArray, dx: DeviceArray) -> None:
        _expect("ave_pool_backward", geom, (dx,), (dy,))
        args: Arguments = (dy, dx, dx.size, *_sizes(geom))
        self._launcher.elementwise("ave_pool", "ave_pool_backward", dx.size, args, 1)


def _is_halving(geom: PoolGeometry) -> bool:
    """Whether this is the paper's pooling: 2x2 windows at stride 2 without padding or remainder."""
    return (
        geom.kernel == geom.stride == (2, 2)
        and geom.pad == (0, 0)
        and geom.h == 2 * geom.p
        and geom.w == 2 * geom.q
        and geom.q % _PAIR == 0
    )


def _sizes(geom: PoolGeometry) -> tuple[int, ...]:
    return (geom.h, geom.w, geom.p, geom.q, *geom.kernel, *geom.stride, *geom.pad)


def _expect(
    op: str,
    geom: PoolGeometry,
    inputs: tuple[DeviceArray, ...],
    outputs: tuple[DeviceArray, ...],
) -> None:
    for array in inputs:
        expect_size(op, array, geom.in_shape)
    for array in outputs:
        expect_size(op, array, geom.out_shape)
