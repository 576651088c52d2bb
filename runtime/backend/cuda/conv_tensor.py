"""Convolution at stride 1 on tensor cores, in tf32 or bf16."""

from __future__ import annotations

import numpy as np

from prototxt_gen.geometry import ConvGeometry, Pair
from runtime.backend.base import ConvPasses, ConvPlan, Epilogue, HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.conv_filters import filters
from runtime.backend.cuda.conv_pack import Grid, Packer, Precision, as_words
from runtime.backend.cuda.launcher import (
    FLOAT,
    Arguments,
    Launcher,
    blocks,
    chunks_of,
    images_of,
)
from runtime.backend.cuda.products import LARGE, WIDE, Splits, Tile

_FEWEST_CHANNELS = 16
# The most bytes of packed images in one chunk: it bounds the workspace.
_CHUNK_BYTES = 512 << 20
# As in conv_implicit.py: the blocks of the weights' gradient, and the fewest positions of each.
_WANTED_BLOCKS = 1024
_FEWEST_PLACES = 1024


def serves(geom: ConvGeometry) -> bool:
    """Whether this convolution runs on tensor cores; the others run in fp32.

    The first layer of the paper's nets runs in fp32: its 3 channels would be padded to 8, and its
    speed is limited by memory.
    """
    reach = _reach(geom)
    return (
        geom.group == 1
        and geom.stride == (1, 1)
        and min(geom.c, geom.k) >= _FEWEST_CHANNELS
        and geom.pad[0] <= reach[0]
        and geom.pad[1] <= reach[1]
    )


class TensorConvolution(ConvPasses):
    """Matrix products on tensor cores, of packed images and filters."""

    def __init__(self, launcher: Launcher, precision: Precision) -> None:
        self._launcher = launcher
        self._precision = precision
        self._packer = Packer(launcher, precision)

    def workspace_bytes(self, geom: ConvGeometry) -> int:
        """Bytes of the packed images of a chunk and of the partial gradients of the weights."""
        images, (x, dy) = self._images(geom), _weight_grids(geom)
        words = images * (self._packer.image_words(x) + self._packer.image_words(dy))
        partial = self._splits(geom).count * geom.k * self._columns(geom)
        return (words + partial) * FLOAT.itemsize

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
        grid = Grid.with_margin(geom.c, (geom.h, geom.w), geom.pad)
        self._correlate(plan, grid, False, x, weight, weight_version, epilogue, y)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: DeviceArray,
        weight: DeviceArray,
        dx: DeviceArray,
        weight_version: int | None,
    ) -> None:
        """See ConvPasses: a convolution of dy with the filters rotated by 180 degrees."""
        geom, reach = plan.geometry, _reach(plan.geometry)
        margin = (reach[0] - geom.pad[0], reach[1] - geom.pad[1])
        grid = Grid.with_margin(geom.k, (geom.p, geom.q), margin)
        self._correlate(plan, grid, True, dy, weight, weight_version, Epilogue(), dx)

    def _correlate(
        self,
        plan: ConvPlan,
        grid: Grid,
        turned: bool,
        x: DeviceArray,
        weight: DeviceArray,
        version: int | None,
        epilogue: Epilogue,
        y: DeviceArray,
    ) -> None:
        """y = x * filters, one chunk of images at a time."""
        geom, chunk = plan.geometry, self._images(plan.geometry)
        name, outputs = ("turned", geom.c) if turned else ("filters", geom.k)
        per_place, (p, q) = self._precision.chunks(grid.channels), _out_plane(geom, grid)
        steps = self._table(plan, f"steps of {name}", self._steps(geom, grid))
        packed, scratch = self._launcher.scratch(
            chunk * self._packer.image_words(grid), self._packer.filter_words(geom, turned)
        )
        ready = filters(
            plan,
            name,
            version,
            self._launcher.memory,
            scratch,
            lambda target: self._packer.filters(geom, weight, target, turned),
        )
        tile = WIDE if outputs <= WIDE.rows else LARGE
        for first, count in chunks_of(geom.n, chunk):
            self._packer.images(grid, images_of(x, geom.n, first, count), count, packed)
            out, pixels = images_of(y, geom.n, first, count), count * p * q
            args: Arguments = (
                *(as_words(ready), as_words(packed), steps, epilogue.bias, out),
                *(outputs, p, q, pixels, steps.size, grid.down, grid.across, per_place),
                int(epilogue.relu),
            )
            kernel = f"conv_{self._precision.name}_{tile}"
            grid_x = tile.grid(outputs, pixels)
            self._launcher.run("conv_tensor", kernel, grid_x, args, _threads(tile))

    def backward_weight(
        self, plan: ConvPlan, x: DeviceArray, dy: DeviceArray, dw: DeviceArray
    ) -> None:
        geom, precision, chunk = plan.geometry, self._precision, self._images(plan.geometry)
        (x_grid, dy_grid), splits = _weight_grids(geom), self._splits(geom)
        columns, tile = self._columns(geom), _weight_tile(geom)
        shifts = self._table(plan, "shifts", x_grid.taps(geom))
        x_packed, dy_packed, partial = self._launcher.scratch(
            chunk * self._packer.image_words(x_grid),
            chunk * self._packer.image_words(dy_grid),
            splits.count * geom.k * columns,
        )
        for first, count in chunks_of(geom.n, chunk):
            self._packer.images(x_grid, images_of(x, geom.n, first, count), count, x_packed)
            self._packer.images(dy_grid, images_of(dy, geom.n, first, count), count, dy_packed)
            args: Arguments = (
                *(as_words(dy_packed), as_words(x_packed), shifts, partial, geom.k, columns),
                *(count * x_grid.places, precision.chunks(geom.k), precision.chunks(geom.c)),
                # Later chunks are added to the partial sums of the first, in the order of images.
                *(splits.chunk, int(first > 0)),
            )
            extent = (tile.grid(geom.k, columns), splits.count, 1)
            kernel = f"conv_weight_{precision.name}_{tile}"
            self._launcher.run("conv_tensor_weight", kernel, extent, args, _threads(tile))
        taps, channels = shifts.size, precision.chunks(geom.c) * precision.chunk
        last = (partial, dw, dw.size, geom.c, taps, channels, splits.count)
        self._launcher.elementwise("conv_pack", "unpack_gradient", dw.size, last, 1)

    def _images(self, geom: ConvGeometry) -> int:
        """Images of a chunk, such that both operands of the weights' gradient fit the limit."""
        words = sum(self._packer.image_words(grid) for grid in _weight_grids(geom))
        chunks = blocks(geom.n, max(1, _CHUNK_BYTES // (words * FLOAT.itemsize)))
        return blocks(geom.n, chunks)

    def _steps(self, geom: ConvGeometry, grid: Grid) -> HostArray:
        """Distance in chunks of each chunk of the depth from a pixel's first. Shapes: (depth,)."""
        per_place = self._precision.chunks(grid.channels)
        steps = grid.taps(geom)[:, None] * per_place + np.arange(per_place)
        return np.asarray(steps).ravel()

    def _columns(self, geom: ConvGeometry) -> int:
        """The number of weights of a filter with its channels padded to a multiple of a chunk."""
        taps = geom.kernel[0] * geom.kernel[1]
        return taps * self._precision.chunks(geom.c) * self._precision.chunk

    def _splits(self, geom: ConvGeometry) -> Splits:
        """How the positions of a chunk of images are split; depends on the geometry alone."""
        places = self._images(geom) * _weight_grids(geom)[0].places
        tiles = _weight_tile(geom).grid(geom.k, self._columns(geom))
        parts = min(blocks(_WANTED_BLOCKS, tiles), places // _FEWEST_PLACES)
        return Splits.of(places, parts, self._precision.depth)

    def _table(self, plan: ConvPlan, name: str, values: HostArray) -> DeviceArray:
        """A table on the device, uploaded once for a plan."""
        if name not in plan.cache:
            plan.cache[name] = self._launcher.table(values)
        table: DeviceArray = plan.cache[name]
        return table


def _reach(geom: ConvGeometry) -> Pair:
    """Rows and columns between the first and the last tap of a filter."""
    return (
        geom.dilation[0] * (geom.kernel[0] - 1),
        geom.dilation[1] * (geom.kernel[1] - 1),
    )


def _out_plane(geom: ConvGeometry, grid: Grid) -> Pair:
    reach = _reach(geom)
    return grid.down - reach[0], grid.across - reach[1]


def _weight_grids(geom: ConvGeometry) -> tuple[Grid, Grid]:
    """The grids of x with its padding, and of dy at the same positions, without a margin before."""
    x = Grid.with_margin(geom.c, (geom.h, geom.w), geom.pad)
    return x, Grid(geom.k, (geom.p, geom.q), (0, 0), x.down, x.across)


def _weight_tile(geom: ConvGeometry) -> Tile:
    return WIDE if geom.k <= WIDE.rows else LARGE


def _threads(tile: Tile) -> int:
    """Threads of a block; a warp computes 64 x 64, see cuda_kernels/tensor_tile.cuh."""
    return tile.rows * tile.cols // (64 * 64) * 32
