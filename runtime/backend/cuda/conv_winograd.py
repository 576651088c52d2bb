"""Convolution by Winograd's F(2x2,3x3) or F(4x4,3x3): 3x3 windows at stride 1."""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_gen.geometry import ConvGeometry, Pair
from runtime.backend.base import ConvPasses, ConvPlan, Epilogue
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.conv_filters import filters
from runtime.backend.cuda.launcher import FLOAT, Launcher, blocks, chunks_of, images_of
from runtime.backend.cuda.products import CudaProducts, Product, Splits

# The most bytes of transformed data and products of one chunk of images. Larger chunks leave fewer
# partial waves of blocks, smaller ones reuse more of the L2 cache.
_CHUNK_BYTES = 256 << 20
# The blocks of the weights' gradient, whose planes have few tiles: enough to occupy a large GPU.
_WANTED_BLOCKS = 1024
_SHORTEST_SPLIT = 256


@dataclass(frozen=True)
class Tiling:
    """How planes of P x Q outputs are covered by tiles, for `images` images at a time."""

    tile: int
    p: int
    q: int
    images: int

    @property
    def planes(self) -> int:
        return (self.tile + 2) ** 2

    @property
    def down(self) -> int:
        return blocks(self.p, self.tile)

    @property
    def across(self) -> int:
        return blocks(self.q, self.tile)

    @property
    def tiles(self) -> int:
        return self.images * self.down * self.across

    @property
    def ld(self) -> int:
        """Row length of the transformed data in tiles: a multiple of 4, which aligns the rows."""
        return blocks(self.tiles, 4) * 4

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return self.down, self.across, self.tiles, self.ld

    def of(self, images: int) -> Tiling:
        return Tiling(self.tile, self.p, self.q, images)

    @classmethod
    def in_chunks(cls, tile: int, n: int, plane: Pair, channels: int) -> Tiling:
        """The tiling of one chunk: within the limit, and with chunks of about the same size."""
        one = cls(tile, *plane, 1)
        per_image = one.planes * one.ld * channels * FLOAT.itemsize
        chunks = blocks(n, max(1, _CHUNK_BYTES // per_image))
        return one.of(blocks(n, chunks))


class WinogradConvolution(ConvPasses):
    """Transforms of data and filters, products plane by plane, and inverse transforms."""

    def __init__(self, launcher: Launcher, products: CudaProducts, tile: int) -> None:
        self._launcher = launcher
        self._products = products
        self._tile = tile

    def workspace_bytes(self, geom: ConvGeometry) -> int:
        """Bytes of filters, transformed data and products of a chunk, or of partial gradients."""
        tiling = self._tiling(geom, (geom.p, geom.q))
        weights = tiling.planes * geom.k * geom.c
        data = tiling.planes * tiling.ld * (geom.c + geom.k)
        return (data + weights * self._splits(geom, tiling).count) * FLOAT.itemsize

    def forward(
        self,
        plan: ConvPlan,
        x: DeviceArray,
        weight: DeviceArray,
        epilogue: Epilogue,
        y: DeviceArray,
        weight_version: int | None,
    ) -> None:
        self._correlate(plan, "filters", weight, weight_version, x, epilogue, y)

    def backward_data(
        self,
        plan: ConvPlan,
        dy: DeviceArray,
        weight: DeviceArray,
        dx: DeviceArray,
        weight_version: int | None,
    ) -> None:
        """See ConvPasses: a convolution of dy with the filters rotated by 180 degrees."""
        self._correlate(plan, "turned", weight, weight_version, dy, Epilogue(), dx)

    def _correlate(
        self,
        plan: ConvPlan,
        name: str,
        weight: DeviceArray,
        version: int | None,
        x: DeviceArray,
        epilogue: Epilogue,
        y: DeviceArray,
    ) -> None:
        """y = x * filters, one chunk of images at a time."""
        geom, turned = plan.geometry, name == "turned"
        direction = _Direction.back(geom) if turned else _Direction.forward(geom)
        tiling = self._tiling(geom, direction.out_plane)
        data, products, scratch = self._launcher.scratch(
            tiling.planes * direction.c * tiling.ld,
            tiling.planes * direction.k * tiling.ld,
            tiling.planes * weight.size // 9,
        )
        ready = filters(
            plan,
            name,
            version,
            self._launcher.memory,
            scratch,
            lambda target: self._transform_filters(geom, weight, target, turned),
        )
        for first, images in chunks_of(geom.n, tiling.images):
            part = tiling.of(images)
            self._transform_data(direction, part, images_of(x, geom.n, first, images), data)
            product = _products(direction, part)
            self._products.multiply(product, Splits.of(direction.c, 1), ready, data, products)
            out = images_of(y, geom.n, first, images)
            sizes = (direction.k, *direction.out_plane, *part.sizes, int(epilogue.relu))
            self._run("product", part.tiles, direction.k, (products, epilogue.bias, out, *sizes))

    def backward_weight(
        self, plan: ConvPlan, x: DeviceArray, dy: DeviceArray, dw: DeviceArray
    ) -> None:
        geom, direction = plan.geometry, _Direction.forward(plan.geometry)
        tiling = self._tiling(geom, direction.out_plane)
        splits, weights = self._splits(geom, tiling), geom.k * geom.c
        data, gradient, partial = self._launcher.scratch(
            tiling.planes * geom.c * tiling.ld,
            tiling.planes * geom.k * tiling.ld,
            tiling.planes * splits.count * weights,
        )
        for first, images in chunks_of(geom.n, tiling.images):
            part = tiling.of(images)
            self._transform_data(direction, part, images_of(x, geom.n, first, images), data)
            top = images_of(dy, geom.n, first, images)
            self._run(
                "gradient",
                part.tiles,
                geom.k,
                (top, gradient, geom.k, *direction.out_plane, *part.sizes),
            )
            # Later chunks are added to the partial sums of the first, in the order of images.
            product, beta = _weight_products(geom, part), 1.0 if first else 0.0
            self._products.multiply(product, splits, gradient, data, partial, 1.0, beta)
        self._run("weight", weights, 1, (partial, dw, weights, splits.count))

    def _transform_data(
        self, direction: _Direction, part: Tiling, x: DeviceArray, data: DeviceArray
    ) -> None:
        args = (x, data, direction.c, *direction.in_plane, *part.sizes, *direction.pad)
        self._run("data", part.tiles, direction.c, args)

    def _transform_filters(
        self, geom: ConvGeometry, weight: DeviceArray, target: DeviceArray, turned: bool
    ) -> None:
        args = (weight, target, geom.k, geom.c, int(turned))
        self._run("filter", geom.k * geom.c, 1, args)

    def _run(
        self, stage: str, along_x: int, along_y: int, args: tuple[DeviceArray | int | None, ...]
    ) -> None:
        width = self._launcher.constant("winograd", "BLOCK")
        name = f"winograd_{stage}_{self._tile}x{self._tile}"
        self._launcher.run("winograd", name, (blocks(along_x, width), along_y, 1), args)

    def _tiling(self, geom: ConvGeometry, plane: Pair) -> Tiling:
        return Tiling.in_chunks(self._tile, geom.n, plane, geom.c + geom.k)

    def _splits(self, geom: ConvGeometry, tiling: Tiling) -> Splits:
        """How the tiles of a chunk are split for the weights' gradient; by the geometry alone."""
        product = _weight_products(geom, tiling)
        parts = blocks(_WANTED_BLOCKS, product.tile.grid(product.m, product.n) * product.batch)
        return Splits.of(product.k, min(parts, product.k // _SHORTEST_SPLIT))


@dataclass(frozen=True)
class _Direction:
    """The channels, planes and padding of the forward convolution, or of the one from dy to dx."""

    c: int
    k: int
    in_plane: Pair
    out_plane: Pair
    pad: Pair

    @classmethod
    def forward(cls, geom: ConvGeometry) -> _Direction:
        return cls(geom.c, geom.k, (geom.h, geom.w), (geom.p, geom.q), geom.pad)

    @classmethod
    def back(cls, geom: ConvGeometry) -> _Direction:
        pad = (2 - geom.pad[0], 2 - geom.pad[1])
        return cls(geom.k, geom.c, (geom.p, geom.q), (geom.h, geom.w), pad)


def _products(direction: _Direction, part: Tiling) -> Product:
    """For each plane: products (K, tiles) = filters (C, K) transposed times data (C, tiles)."""
    return Product(
        m=direction.k,
        n=part.tiles,
        k=direction.c,
        a_row=1,
        a_depth=direction.k,
        b_depth=part.ld,
        b_col=1,
        c_row=part.ld,
        batch=part.planes,
        a_batch=direction.c * direction.k,
        b_batch=direction.c * part.ld,
        c_batch=direction.k * part.ld,
    )


def _weight_products(geom: ConvGeometry, part: Tiling) -> Product:
    """For each plane: dw (K, C) = dy (K, tiles) times data (C, tiles) transposed."""
    return Product(
        m=geom.k,
        n=geom.c,
        k=part.tiles,
        a_row=part.ld,
        a_depth=1,
        b_depth=1,
        b_col=part.ld,
        c_row=geom.c,
        batch=part.planes,
        a_batch=geom.k * part.ld,
        b_batch=geom.c * part.ld,
        c_batch=geom.k * geom.c,
    )
