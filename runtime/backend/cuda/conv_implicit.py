"""Convolution as an implicit matrix product: any geometry."""

from __future__ import annotations

import numpy as np

from prototxt_gen.errors import UnsupportedError
from prototxt_gen.geometry import ConvGeometry, Pair
from runtime.backend.base import ConvPasses, ConvPlan, Epilogue, HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.conv_filters import filters
from runtime.backend.cuda.launcher import FLOAT, Launcher, blocks
from runtime.backend.cuda.products import LARGE, SMALL, WIDE, CudaProducts, Splits, Tile

# The weights' gradient has few tiles and a long depth. It is split into this many blocks, which
# occupy a large GPU, each of at least _FEWEST_PIXELS pixels.
_WANTED_BLOCKS = 1024
_FEWEST_PIXELS = 512
# The number of a row outside every image.
_BELOW = 0x7FFF


def steps(channels: int, plane: Pair, kernel: Pair, dilation: Pair, in_holes: bool) -> HostArray:
    """The table of depths c*R*S + r*S + s of the product; see cuda_kernels/conv_loaders.cuh.

    With `in_holes` the distance is that of the channel alone.

    Shapes: (C*R*S rounded up to a multiple of 128, 2) int32.

    Raises:
        UnsupportedError: the extent of the dilated filter does not fit 16 bits.
    """
    c, r, s = np.meshgrid(*(np.arange(n) for n in (channels, *kernel)), indexing="ij")
    row, col = r * dilation[0], s * dilation[1]
    if max(row.max(), col.max()) >= _BELOW:
        raise UnsupportedError(
            f"convolution: a filter of {kernel} at dilation {dilation} spans {row.max() + 1}x"
            f"{col.max() + 1} pixels; expected at most {_BELOW}; use a smaller dilation"
        )
    distance = c * plane[0] * plane[1]
    if not in_holes:
        distance = distance + row * plane[1] + col
    depth = distance.size
    table = np.zeros((blocks(depth, LARGE.cols) * LARGE.cols, 2), np.int64)
    table[:, 1] = _BELOW << 16
    table[:depth] = np.stack([distance.ravel(), (row << 16 | col).ravel()], 1)
    return table.astype(np.int32)


class ImplicitConvolution(ConvPasses):
    """Matrix products whose columns are gathered by the kernel."""

    def __init__(self, launcher: Launcher, products: CudaProducts) -> None:
        self._launcher = launcher
        self._products = products

    def workspace_bytes(self, geom: ConvGeometry) -> int:
        """Bytes of the partial gradients of the weights or of the rotated filters."""
        return weight_splits(geom).count * int(np.prod(geom.weight_shape)) * FLOAT.itemsize

    def forward(
        self,
        plan: ConvPlan,
        x: DeviceArray,
        weight: DeviceArray,
        epilogue: Epilogue,
        y: DeviceArray,
        weight_version: int | None,
    ) -> None:
        geom = plan.geometry
        table = self._steps(plan, "steps", geom.c, (geom.h, geom.w), False)
        tile = WIDE if geom.k // geom.group <= WIDE.rows else LARGE
        sizes = (*_sizes(geom), *geom.stride, *geom.pad, 1, 1, int(epilogue.relu))
        self._launcher.run(
            "conv",
            f"conv_{tile}",
            (tile.grid(geom.k // geom.group, geom.n * geom.p * geom.q), 1, geom.group),
            (x, weight, epilogue.bias, table, y, *sizes),
        )

    def backward_data(
        self,
        plan: ConvPlan,
        dy: DeviceArray,
        weight: DeviceArray,
        dx: DeviceArray,
        weight_version: int | None,
    ) -> None:
        """See ConvPasses: a convolution of dy with the filters rotated by 180 degrees."""
        geom = plan.geometry
        holes = geom.stride != (1, 1)
        table = self._steps(plan, "steps back", geom.k, (geom.p, geom.q), holes)
        (scratch,) = self._launcher.scratch(weight.size)
        turned = filters(
            plan,
            "turned",
            weight_version,
            self._launcher.memory,
            scratch,
            lambda target: self._turn(geom, weight, target),
        )
        rows = geom.c // geom.group
        tile = SMALL if holes else WIDE if rows <= WIDE.rows else LARGE
        kernel = f"conv_holes_{tile}" if holes else f"conv_{tile}"
        back = _sizes_back(geom)
        pad = (
            geom.dilation[0] * (geom.kernel[0] - 1) - geom.pad[0],
            geom.dilation[1] * (geom.kernel[1] - 1) - geom.pad[1],
        )
        self._launcher.run(
            "conv",
            kernel,
            (tile.grid(rows, geom.n * geom.h * geom.w), 1, geom.group),
            (dy, turned, None, table, dx, *back, 1, 1, *pad, *geom.stride, 0),
        )

    def backward_weight(
        self, plan: ConvPlan, x: DeviceArray, dy: DeviceArray, dw: DeviceArray
    ) -> None:
        geom, splits = plan.geometry, weight_splits(plan.geometry)
        table = self._steps(plan, "steps", geom.c, (geom.h, geom.w), False)
        tile = _weight_tile(geom)
        (partial,) = self._launcher.scratch(splits.count * dw.size)
        self._launcher.run(
            "conv_weight",
            f"conv_weight_{tile}",
            (tile.grid(*_weight_matrix(geom)), splits.count, geom.group),
            (x, dy, table, partial, *_sizes(geom), *geom.stride, *geom.pad, splits.chunk),
        )
        self._products.sum_splits(partial, splits.count, dw, 1.0, 1.0)

    def _turn(self, geom: ConvGeometry, weight: DeviceArray, turned: DeviceArray) -> None:
        sizes = (geom.c // geom.group, geom.k // geom.group, geom.kernel[0] * geom.kernel[1])
        args = (weight, turned, weight.size, *sizes)
        self._launcher.elementwise("conv", "conv_turn_filters", weight.size, args, 1)

    def _steps(
        self, plan: ConvPlan, name: str, channels: int, plane: Pair, in_holes: bool
    ) -> DeviceArray:
        """The table of steps on the device, uploaded once for a plan."""
        if name not in plan.cache:
            geom = plan.geometry
            values = steps(channels // geom.group, plane, geom.kernel, geom.dilation, in_holes)
            plan.cache[name] = self._launcher.table(values)
        table: DeviceArray = plan.cache[name]
        return table


def weight_splits(geom: ConvGeometry) -> Splits:
    """How the pixels are split for the weights' gradient; depends on the geometry alone."""
    pixels = geom.n * geom.p * geom.q
    tiles = _weight_tile(geom).grid(*_weight_matrix(geom)) * geom.group
    return Splits.of(pixels, min(blocks(_WANTED_BLOCKS, tiles), pixels // _FEWEST_PIXELS))


def _weight_matrix(geom: ConvGeometry) -> tuple[int, int]:
    """Output channels of a group, and weights of a filter."""
    return geom.k // geom.group, geom.c // geom.group * geom.kernel[0] * geom.kernel[1]


def _weight_tile(geom: ConvGeometry) -> Tile:
    rows, cols = _weight_matrix(geom)
    if cols <= SMALL.cols:
        return SMALL
    return WIDE if rows <= WIDE.rows else LARGE


def _sizes(geom: ConvGeometry) -> tuple[int, ...]:
    """C, H, W, K, P, Q of a group; pixels, depth; elements from image to image in x and in y."""
    c, k = geom.c // geom.group, geom.k // geom.group
    pixels, depth = geom.n * geom.p * geom.q, c * geom.kernel[0] * geom.kernel[1]
    images = (geom.c * geom.h * geom.w, geom.k * geom.p * geom.q)
    return (c, geom.h, geom.w, k, geom.p, geom.q, pixels, depth, *images)


def _sizes_back(geom: ConvGeometry) -> tuple[int, ...]:
    """As `_sizes`, for the convolution that computes dx from dy."""
    c, k = geom.c // geom.group, geom.k // geom.group
    pixels, depth = geom.n * geom.h * geom.w, k * geom.kernel[0] * geom.kernel[1]
    images = (geom.k * geom.p * geom.q, geom.c * geom.h * geom.w)
    return (k, geom.p, geom.q, c, geom.h, geom.w, pixels, depth, *images)
