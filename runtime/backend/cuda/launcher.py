"""Shared by all groups of CUDA ops: launches by name, checks of arrays, and scratch memory."""

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
from runtime.backend.cuda.self_check import SelfCheck

Arguments = tuple[Argument, ...]
FLOAT = np.dtype(np.float32)
QUAD = 4
"""Elements that a thread of an elementwise kernel computes; see cuda_kernels/quads.cuh."""
_ALIGNED = 64
_MOST_ROWS = 65535


class Launcher:
    """Launches kernels of one driver on arrays of one memory."""

    def __init__(self, driver: Driver, memory: DeviceMemory) -> None:
        self.driver = driver
        self.memory = memory
        self.launches = 0
        """The number of kernels, fills and copies on the device submitted so far."""
        self.block: PassBlock | None = None
        """The values that change from pass to pass, while launches are recorded."""
        self.check: SelfCheck | None = None
        """The check of the kernels before their first use; None to use them unchecked."""
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
        """Launch a kernel of cuda_kernels/<source>.cu, by default with its largest block.

        Raises:
            DeviceError: an array belongs to another device or backend, or the launch is invalid.
        """
        loaded = self._kernel(source, kernel)
        for arg in args:
            if isinstance(arg, DeviceArray):
                self.expect_own(f"kernel '{kernel}'", arg)
        block = threads or loaded.signature.max_threads
        extent = (grid, 1, 1) if isinstance(grid, int) else grid
        self.launches += 1
        self.driver.launch(loaded, extent, (block, 1, 1) if isinstance(block, int) else block, args)

    def expect_own(self, op: str, array: DeviceArray) -> None:
        """Check that an array, of any shape, belongs to this backend.

        Raises:
            DeviceError: it belongs to another backend.
        """
        if not isinstance(array, DeviceArray) or not self.memory.owns(array):
            raise DeviceError(
                f"{op}: an array of another backend ({array!r}); expected one of "
                f"{self.driver.name} {self.driver.device_id}; copy it there first"
            )

    def elementwise(
        self, source: str, kernel: str, count: int, args: Sequence[Argument], per_thread: int = QUAD
    ) -> None:
        """Launch a kernel in which a thread computes `per_thread` of `count` elements."""
        threads = self._kernel(source, kernel).signature.max_threads
        self.run(source, kernel, blocks(count, threads * per_thread), args)

    def replayed_rate(self, rate: float) -> DeviceArray | None:
        """See LayerKernels.replayed_rate."""
        return None if self.block is None else self.block.take_rate(rate)

    def usable(self, rung: str) -> bool:
        """Whether a way to compute an op gives the known answers; see known_answers.py."""
        return self.check is None or self.check.usable(rung)

    def constant(self, source: str, name: str) -> int:
        """The value of a `constexpr int` of a kernel file."""
        constant = self._constants.get((source, name))
        if constant is None:
            constant = self._constants[source, name] = self.driver.constants(source)[name]
        return constant

    def _kernel(self, source: str, name: str) -> Kernel:
        """A loaded kernel; cached, because it is looked up hundreds of times an iteration."""
        loaded = self._kernels.get((source, name))
        if loaded is None:
            if self.check is not None:
                self.check.require(source)
            loaded = self._kernels[source, name] = self.driver.load(source)[name]
        return loaded

    def table(self, values: HostArray) -> DeviceArray:
        """Upload a table of any shape as int32; the result has the same shape."""
        host = np.ascontiguousarray(values, np.int32)
        device = self.memory.empty(host.shape, host.dtype)
        self.driver.upload(host, device.address)
        return device

    def scratch(self, *counts: int) -> list[DeviceArray]:
        """Float32 arrays in the workspace that all ops share; valid until the next call.

        Shapes: (count,) for each of `counts`.
        """
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
    """The first image and the number of images of each chunk of a batch."""
    for first in range(0, n, images):
        yield first, min(images, n - first)


def images_of(array: DeviceArray, n: int, first: int, count: int) -> DeviceArray:
    """View `count` images of a batch of n, from image `first` on.

    Shapes: array (n,...); the result (count * size of an image,).
    """
    per_image = array.size // n
    return array.view(first * per_image, (count * per_image,))


def blocks(count: int, per_block: int) -> int:
    """The number of blocks for `count` elements."""
    return ceil_div(count, per_block)


def rows_along_y(rows: int) -> int:
    """The extent along y of a grid whose kernel loops over the remaining rows."""
    return min(rows, _MOST_ROWS)


def expect_size(name: str, array: DeviceArray, shape: Sequence[int]) -> None:
    """Check that an array has as many elements as the shape; its own shape may differ.

    Raises:
        ShapeError: it has another number of elements, and a kernel would access memory beyond it.
    """
    if array.size != math.prod(shape):
        raise ShapeError(
            f"{name}: an array in shape {array.shape}; expected {math.prod(shape)} elements as in "
            f"{tuple(shape)}; reshape the blob"
        )


def expect_same_size(name: str, first: DeviceArray, *others: DeviceArray) -> int:
    """The number of elements, which must be the same for all arrays; shapes may differ.

    Raises:
        ShapeError: the numbers differ.
    """
    for other in others:
        expect_size(name, other, first.shape)
    return first.size
