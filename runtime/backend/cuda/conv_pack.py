"""Images and filters in the layout of the tensor cores; see cuda_kernels/conv_pack.cu."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prototxt_gen.geometry import ConvGeometry, Pair
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import Launcher, blocks

WORDS = 4
"""32-bit words in a chunk of 16 bytes."""
_WORD = np.dtype(np.uint32)


@dataclass(frozen=True)
class Precision:
    """The type of the operands: how many of its numbers a chunk of 16 bytes and a stage hold."""

    name: str
    chunk: int
    depth: int

    def chunks(self, channels: int) -> int:
        """The number of chunks that hold these channels."""
        return blocks(channels, self.chunk)


PRECISIONS = {"tf32": Precision("tf32", 4, 16), "bf16": Precision("bf16", 8, 32)}


@dataclass(frozen=True)
class Grid:
    """The positions of one packed image: planes of size `plane` within a margin of zeros."""

    channels: int
    plane: Pair
    corner: Pair
    """Row and column of the plane's first element."""
    down: int
    across: int

    @classmethod
    def with_margin(cls, channels: int, plane: Pair, margin: Pair) -> Grid:
        """A grid with the same margin on all sides."""
        down, across = plane[0] + 2 * margin[0], plane[1] + 2 * margin[1]
        return cls(channels, plane, margin, down, across)

    @property
    def places(self) -> int:
        return self.down * self.across

    def taps(self, geom: ConvGeometry) -> HostArray:
        """The distance in positions of each filter tap from the first. Shapes: (R*S,)."""
        r, s = np.meshgrid(*(np.arange(n) for n in geom.kernel), indexing="ij")
        return np.asarray(r * geom.dilation[0] * self.across + s * geom.dilation[1]).ravel()


class Packer:
    """Packs in one precision."""

    def __init__(self, launcher: Launcher, precision: Precision) -> None:
        self._launcher = launcher
        self._precision = precision

    def image_words(self, grid: Grid) -> int:
        """The number of 32-bit words of one packed image."""
        return grid.places * self._precision.chunks(grid.channels) * WORDS

    def images(self, grid: Grid, x: DeviceArray, count: int, packed: DeviceArray) -> None:
        """Pack `count` images.

        Shapes: x (count,C,H,W); packed (count * image_words,) uint32.
        """
        launcher = self._launcher
        places, lines = (launcher.constant("conv_pack", name) for name in ("PLACES", "LINES"))
        words = self._precision.chunks(grid.channels) * WORDS
        launcher.run(
            "conv_pack",
            f"pack_images_{self._precision.name}",
            (blocks(grid.places, places), blocks(words, places), count),
            (
                *(x, as_words(packed), grid.channels, *grid.plane),
                *(grid.down, grid.across, *grid.corner, words),
            ),
            (places, lines, 1),
        )

    def filter_words(self, geom: ConvGeometry, turned: bool) -> int:
        """The number of 32-bit words of all packed filters."""
        outputs, inputs = (geom.c, geom.k) if turned else (geom.k, geom.c)
        taps = geom.kernel[0] * geom.kernel[1]
        return outputs * taps * self._precision.chunks(inputs) * WORDS

    def filters(
        self, geom: ConvGeometry, weight: DeviceArray, packed: DeviceArray, turned: bool
    ) -> None:
        """Pack filters; `turned` swaps K and C and rotates them by 180 degrees.

        Shapes: weight (K,C,R,S); packed (filter_words,) uint32.
        """
        count = self.filter_words(geom, turned)
        words = self._precision.chunks(geom.k if turned else geom.c) * WORDS
        taps = geom.kernel[0] * geom.kernel[1]
        args = (weight, as_words(packed), count, geom.k, geom.c, taps, words, int(turned))
        name = f"pack_filters_{self._precision.name}"
        self._launcher.elementwise("conv_pack", name, count, args, 1)


def as_words(array: DeviceArray) -> DeviceArray:
    """View the memory of an array of any shape as 32-bit words. Shapes: (words,) uint32."""
    return DeviceArray(array.address, array.shape, _WORD, array.owner)
