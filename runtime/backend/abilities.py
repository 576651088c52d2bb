"""Abilities of a backend that are not ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from runtime.backend.arrays import Array, HostArray


class InputBatch(Protocol):
    """Writes a batch of cropped and mirrored images into the input blob."""

    def __call__(
        self, pixels: HostArray, offsets: HostArray | None, scale: float, y: Array
    ) -> None:
        """y = (pixel - offset) * scale; y = pixel if `offsets` is None.

        Shapes: pixels and y (N,C,H,W), pixels uint8 if `offsets` is given; offsets (N,C).

        Raises:
            ShapeError: the shapes do not agree.
        """


class DeviceCapacity(Protocol):
    """The memory of a device with memory of its own. Units: bytes."""

    @property
    def total_bytes(self) -> int:
        """The total memory of the device."""

    @property
    def free_bytes(self) -> int:
        """The memory that is not allocated."""

    def close(self) -> None:
        """Free the memory that no array uses, with the workspace of the ops."""

    def expect_room(self, nbytes: int, purpose: str) -> None:
        """Check before a run that `nbytes` of memory are free.

        Raises:
            OutOfMemoryError: less is free; the message contains `purpose`.
        """


class LayerKernels(Protocol):
    """Launches kernels of layers that have no op of the backend."""

    def elementwise(
        self, source: str, kernel: str, count: int, args: Sequence[Any], per_thread: int = 4
    ) -> None:
        """Launch a kernel of cuda_kernels/<source>.cu for `count` elements.

        Args:
            source: the name of the file, without its suffix.
            kernel: the name of the function.
            count: the number of elements.
            args: device arrays and numbers, in the order of the kernel's parameters.
            per_thread: the number of elements that a thread computes.

        Raises:
            DeviceError: an array belongs to another backend, or the launch fails.
        """

    def run(self, source: str, kernel: str, grid: int, args: Sequence[Any]) -> None:
        """Launch a kernel of cuda_kernels/<source>.cu with `grid` of its largest blocks.

        Raises:
            DeviceError: see elementwise.
        """

    def replayed_rate(self, rate: float) -> Array | None:
        """The array from which replays read the learning rate of an update, while it is recorded.

        None if the launch is not recorded with this rate. Shapes: (1,).
        """
