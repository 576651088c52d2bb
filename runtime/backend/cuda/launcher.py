"""What every group of CUDA ops works with: kernels by name, arrays that are checked, scratch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from prototxt_gen.errors import DeviceError, ShapeError
from prototxt_gen.integers import ceil_div, round_up
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Argument, Driver, Extent, Kernel
from runtime.backend.cuda.memory import DeviceMemory
from runtime.backend.cuda.pass_block import PassBlock

Arguments = tuple[Argument, ...]
FLOAT = np.dtype(np.float32)
QUAD = 4
"""Elements a thread of an elementwise kernel takes: see cuda_kernels/quads.cuh."""
_ALIGNED = 64
_MOST_ROWS = 65535


class Launcher:
    """Launches kernels of one driver on arrays of one memory."""

    def __init__(self, driver: Driver, memory: DeviceMemory) -> None:
        self.driver = driver
        self.memory = memory
        self.launches = 0
        """Kernels, fills and copies on the device asked for so far, one by one."""
        self.block: PassBlock | None = None
        """While launches are recorded: what changes from pass to pass."""
        self._kernels: dict[tuple[str, str], Kernel] = {}
        self._constants: dict[tuple[str, str], int] = {}

    def run(
        self,
        source: str,
        kernel: str,
        grid: int | Extent,
        args: Sequence[Argument],
        threads: int | Extent = 0,
    ) -> None:
        """Launch a kernel of cuda_kernels/<source>.cu; by default with as many threads as it takes.

        Raises:
            DeviceError: an array belongs to another device or backend, or the launch is refused.
        """
        loaded = self._kernel(source, kernel)
        for arg in args:
            if isinstance(arg, DeviceArray):
                self.expect_own(f"kernel '{kernel}'", arg)
        block = threads or loaded.signature.max_threads
        extent = (grid, 1, 1) if isinstance(grid, int) else grid
        self.launches += 1
        self.driver.launch(loaded, extent, (block, 1, 1) if isinstance(block, int) else block, args)

    def expect_own(self, what: str, array: DeviceArray) -> None:
        """Refuse an array of another backend.

        Raises:
            DeviceError: its address means nothing here.
        """
        if not isinstance(array, DeviceArray) or not self.memory.owns(array):
            raise DeviceError(
                f"{what}: an array of another backend ({array!r}); expected one of "
                f"{self.driver.name} {self.driver.device_id}; copy it there first"
            )

    def elementwise(
        self, source: str, kernel: str, count: int, args: Sequence[Argument], each: int = QUAD
    ) -> None:
        """Launch a kernel in which a thread takes `each` of `count` elements."""
        threads = self._kernel(source, kernel).signature.max_threads
        self.run(source, kernel, blocks(count, threads * each), args)

    def constant(self, source: str, name: str) -> int:
        """A `constexpr int` of a kernel file."""
        found = self._constants.get((source, name))
        if found is None:
            found = self._constants[source, name] = self.driver.constants(source)[name]
        return found

    def _kernel(self, source: str, name: str) -> Kernel:
        """A loaded kernel; looked up a few hundred times an iteration, so remembered."""
        found = self._kernels.get((source, name))
        if found is None:
            found = self._kernels[source, name] = self.driver.load(source)[name]
        return found

    def table(self, values: HostArray) -> DeviceArray:
        """Small numbers that kernels look up, as int32 on the device."""
        host = np.ascontiguousarray(values, np.int32)
        device = self.memory.empty(host.shape, host.dtype)
        self.driver.upload(host, device.address)
        return device

    def scratch(self, *counts: int) -> list[DeviceArray]:
        """Arrays of float32 in the workspace all ops share: theirs until the next call."""
        starts, total = [], 0
        for count in counts:
            starts.append(total)
            total += round_up(count, _ALIGNED)
        space = self.memory.workspace(total * FLOAT.itemsize)
        return [
            DeviceArray(space.address + start * FLOAT.itemsize, (count,), FLOAT, space.owner)
            for start, count in zip(starts, counts)
        ]


def chunks_of(n: int, images: int) -> Iterator[tuple[int, int]]:
    """First image and number of images of each chunk of a batch."""
    for first in range(0, n, images):
        yield first, min(images, n - first)


def images_of(array: DeviceArray, n: int, first: int, count: int) -> DeviceArray:
    """Some images of a batch of n."""
    per_image = array.size // n
    return array.view(first * per_image, (count * per_image,))


def blocks(count: int, per_block: int) -> int:
    """How many blocks serve `count` elements."""
    return ceil_div(count, per_block)


def rows_along_y(rows: int) -> int:
    """A grid's extent along y for a kernel that goes on to further rows itself."""
    return min(rows, _MOST_ROWS)


def expect_size(what: str, array: DeviceArray, shape: Sequence[int]) -> None:
    """Refuse an array that does not have as many elements as the shape.

    Raises:
        ShapeError: a kernel would read or write beyond it.
    """
    if array.size != math.prod(shape):
        raise ShapeError(
            f"{what}: an array in shape {array.shape}; expected {math.prod(shape)} elements as in "
            f"{tuple(shape)}; reshape the blob"
        )


def expect_same_size(what: str, first: DeviceArray, *others: DeviceArray) -> int:
    """The number of elements that all of them have.

    Raises:
        ShapeError: one of them has another number.
    """
    for other in others:
        expect_size(what, other, first.shape)
    return first.size
