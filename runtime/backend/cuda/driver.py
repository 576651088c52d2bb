"""The interface between launch code and hardware, implemented for a GPU and for the emulator.

Launch code uses `Driver` alone. The caller selects the implementation by name: PyCudaDriver
(`gpu`), or EmulatorDriver (`emu`), which runs the same .cu files compiled by g++.

    kernels = driver.load("max_pool")                 cuda_kernels/max_pool.cu, built and cached
    kernel = kernels["max_pool_forward"]              .signature: name, parameters, max_threads
    x = memory.empty(count, dtype)                    DeviceMemory: pool and workspace (memory.py)
    driver.launch(kernel, (blocks, 1, 1), (256, 1, 1), (x, y, mask, n, 0.5))

An argument is a DeviceArray (of the dtype that the pointer points to), None for a null pointer, an
int or a float. Arguments are packed according to the prototype in the .cu
(cuda_kernels/manifest.py). Tile and block sizes that a launch needs are `constexpr int` in the .cu,
read by `driver.constants("max_pool")`. cuda_kernels/common.cuh lists the rules that kernels follow
so that the emulator can run them.

Order: a driver has one compute stream, which `stream` = None denotes. Work on a stream is executed
in the order of the calls; between streams only events define an order. `launch` and the other calls
on a stream may return before the work is done, except `download` without a stream. An error in a
kernel may be reported by any later call.

Threads: a driver may be called from any thread, by one thread at a time. The drivers of a process
are independent of each other; several may be open on one device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cuda_kernels.manifest import Signature
from prototxt_gen.errors import DeviceError
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray

Extent = tuple[int, int, int]
"""Sizes along x, y, z."""
Argument = DeviceArray | int | float | None
Stream = Any
"""A queue of work on the device; opaque, made by `Driver.stream`."""
Event = Any
"""A point in a stream; opaque, made by `Driver.event`."""
Graph = Any
"""Recorded launches; opaque, made by `Driver.capture`."""


class OutOfMemoryError(DeviceError):
    """The device has less free memory than was requested."""


@dataclass(frozen=True)
class DeviceInfo:
    """Properties of a device. Units: sizes in bytes."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    total_memory: int
    shared_per_block: int
    """The most shared memory of a block, dynamic memory included; static alone: 48 KiB."""
    clock_khz: int = 0
    memory_clock_khz: int = 0
    memory_bus_bits: int = 0
    l2_cache: int = 0
    driver_version: str = ""

    @property
    def arch(self) -> int:
        """90 for compute capability 9.0."""
        return 10 * self.compute_capability[0] + self.compute_capability[1]


@dataclass(frozen=True)
class Kernel:
    """A loaded kernel: its prototype, its source file, and the handle that the driver uses."""

    signature: Signature
    source: str
    handle: Any


class Driver(Protocol):
    """A device's memory, kernels and streams. Units: addresses and sizes are integers, in bytes."""

    name: str
    device_id: int
    info: DeviceInfo

    # Memory.
    def allocate(self, size: int) -> int:
        """Allocate memory of unspecified contents, aligned to 256 bytes, and return its address.

        Raises:
            OutOfMemoryError: the message gives the size requested and the size free.
        """

    def free(self, address: int) -> None:
        """Free memory of `allocate`, after all work submitted so far."""

    def lend(self, address: int, size: int) -> None:
        """Mark `size` bytes of this allocation as used by a new owner.

        The emulator fills them with NaN and guards the bytes after them; a GPU does nothing.
        """

    def free_memory(self) -> int:
        """The free memory of the device in bytes."""

    def pinned(self, size: int) -> HostArray:
        """A pinned host array, which the device copies while it computes. Shapes: (size,) uint8."""

    # Copies. Host arrays are C-contiguous, of any shape. With a stream they must be pinned and must
    # not change until the stream is synchronized.
    def upload(self, host: HostArray, address: int, stream: Stream = None) -> None:
        """Copy a host array to the device; without a stream it may change after the return.

        Shapes: any; `address` has room for the same number of bytes.
        """

    def download(self, address: int, host: HostArray, stream: Stream = None) -> None:
        """Fill a host array from the device; without a stream it is filled on return.

        Shapes: any; `address` has the same number of bytes.
        """

    def copy(self, src: int, dst: int, size: int, stream: Stream = None) -> None:
        """Copy on the device, or between two devices of one process."""

    def can_access_peer(self, peer: Any) -> bool:
        """Whether this device can read a peer's memory directly; enables the access if it can.

        `peer` is a driver of the same kind in this process.
        """

    def copy_peer(self, peer: Any, src: int, dst: int, size: int, stream: Stream = None) -> None:
        """Copy from a peer's memory to this device; see `can_access_peer`."""

    def fill_bytes(self, address: int, value: int, size: int, stream: Stream = None) -> None:
        """Set every byte to `value` (0 to 255)."""

    # Kernels.
    def load(self, source: str) -> Mapping[str, Kernel]:
        """The kernels of cuda_kernels/<source>.cu by name; built if necessary, loaded once.

        Raises:
            KernelBuildError: the file does not compile; the message contains the compiler's output.
            DeviceError: there is no compiler, or the device is too old for this file.
        """

    def constants(self, source: str) -> Mapping[str, int]:
        """The values of the `constexpr int` at file scope of cuda_kernels/<source>.cu."""

    def launch(
        self,
        kernel: Kernel,
        grid: Extent,
        block: Extent,
        args: Sequence[Argument],
        shared_bytes: int = 0,
        stream: Stream = None,
    ) -> None:
        """Run a kernel; an empty grid does nothing. `shared_bytes` is the dynamic shared memory.

        Raises:
            DeviceError: grid, block, shared memory or arguments exceed what kernel and device
                allow; in the emulator also a fault of the kernel, with its block and thread.
        """

    # Order.
    def stream(self) -> Stream:
        """A new stream, independent of the compute stream."""

    def native_stream(self, stream: Stream) -> int:
        """The stream's handle for CUDA libraries; makes its device the thread's current one."""

    def event(self) -> Event:
        """A new event."""

    def record(self, event: Event, stream: Stream = None) -> None:
        """Record the event after all work of the stream so far."""

    def wait(self, event: Event, stream: Stream = None) -> None:
        """Make later work of the stream begin after the event."""

    def finish(self, event: Event) -> None:
        """Wait on the host for an event; one that was never recorded counts as passed."""

    def synchronize(self, stream: Stream = None) -> None:
        """Wait on the host for a stream; without one, for all work of this driver."""

    # Recorded launches.
    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what `work` submits to the compute stream, without executing it.

        `work` may launch, copy on the device and fill. It must not allocate device memory, load
        kernels, copy to or from the host, or wait; call it once before, so that the kernels are
        loaded and the workspace has its size. Arguments are recorded by value: a replay reads and
        writes the same addresses.
        """

    def replay(self, graph: Graph) -> None:
        """Execute the recorded work on the compute stream, at the cost of one launch."""

    def close(self) -> None:
        """Release the device. Later calls are errors, except `free` and `close`."""


def expect_contiguous(operation: str, host: HostArray) -> None:
    """Check that a host array of any shape is contiguous.

    Raises:
        DeviceError: it is not C-contiguous.
    """
    if not host.flags.c_contiguous:
        raise DeviceError(
            f"{operation}: a host array with strides {host.strides} for shape {host.shape}; "
            "expected a C-contiguous one; use numpy.ascontiguousarray"
        )


def refused_in_capture(driver: Driver, operation: str) -> DeviceError:
    """The error for an operation that `Driver.capture` does not allow."""
    return DeviceError(
        f"{driver.name} {driver.device_id}: {operation} while launches are captured; expected "
        "launches, copies on the device and fills alone; do it before the capture"
    )


def checked_launch(
    info: DeviceInfo, kernel: Kernel, grid: Extent, block: Extent, shared_bytes: int
) -> bool:
    """Check a launch, for both drivers; returns whether the grid has any block.

    Raises:
        DeviceError: grid, block or shared memory exceed the limits.
    """
    signature = kernel.signature
    threads = block[0] * block[1] * block[2]
    if min(block) < 1 or threads > signature.max_threads or block[2] > 64:
        raise DeviceError(
            f"kernel '{signature.name}': block {block} has {threads} threads; expected 1 to "
            f"{signature.max_threads}, at most 64 along z; launch smaller blocks"
        )
    if min(grid) < 0 or grid[0] > 2**31 - 1 or max(grid[1], grid[2]) > 65535:
        raise DeviceError(
            f"kernel '{signature.name}': grid {grid}; expected at most 2147483647 blocks along x "
            "and 65535 along y and z; compute more in each thread, or arrange the grid differently"
        )
    if not 0 <= shared_bytes <= info.shared_per_block:
        raise DeviceError(
            f"kernel '{signature.name}': {shared_bytes} bytes of dynamic shared memory; expected "
            f"0 to {info.shared_per_block}, which {info.name} has; use smaller tiles"
        )
    return min(grid) > 0


def argument_values(signature: Signature, args: Sequence[Argument]) -> list[int | float]:
    """Addresses and scalars for `Signature.pack`.

    Raises:
        DeviceError: an array has another dtype than the parameter, or an array is given for a
            scalar or a scalar for an array.
    """
    values: list[int | float] = []
    parameters = signature.parameters
    for number, arg in enumerate(args):
        if number >= len(parameters):
            break
        parameter = parameters[number]
        if isinstance(arg, DeviceArray):
            if arg.dtype != parameter.dtype:
                raise _wrong_kind(signature, number, f"an array of {arg.dtype}")
            values.append(arg.address)
        elif parameter.dtype is None:
            if arg is None:
                raise _wrong_kind(signature, number, "None")
            values.append(arg)
        elif arg is None:
            values.append(0)
        else:
            raise _wrong_kind(signature, number, repr(arg))
    values.extend(0 for _ in args[len(parameters) :])
    return values


def _wrong_kind(signature: Signature, number: int, got: str) -> DeviceError:
    parameter = signature.parameters[number]
    expected = parameter.ctype if parameter.dtype is None else f"an array of {parameter.dtype}"
    return DeviceError(
        f"kernel '{signature.name}', argument {number} '{parameter.name}': expected {expected}, "
        f"got {got}; correct the launch"
    )
