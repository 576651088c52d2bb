"""The seam between launch code and hardware: the calls that a real GPU and the emulator share.

Launch code is written against `Driver` alone; which one it gets is the caller's choice, by name:
PyCudaDriver (`gpu`), or EmulatorDriver (`emu`), which runs the very same .cu text built by g++.

    kernels = driver.load("pool")                     cuda_kernels/pool.cu, built and cached
    kernel = kernels["max_pool_forward"]              .signature: name, parameters, max_threads
    x = memory.empty(count, dtype)                    DeviceMemory: pool and workspace (memory.py)
    driver.launch(kernel, (blocks, 1, 1), (256, 1, 1), (x, y, mask, n, 0.5))

An argument is a DeviceArray (its dtype must be the pointee's), None for a null pointer, an int or a
float; they are packed by the prototype in the .cu (cuda_kernels/manifest.py). Tile sizes and block
sizes that the launch needs are `constexpr int` in the .cu, read by `driver.constants("pool")`. How
a kernel has to be written so that the emulator can run it stands at the head of
cuda_kernels/common.cuh.

Order: a driver has one compute stream of its own, meant wherever `stream` is None. Work on a stream
happens in the order it was asked for; between streams there is no order but by events. `launch` and
everything else on a stream may return before it has happened, except `download` without a stream.
An error in a kernel may show at any later call.

Threads: a driver may be called from any thread, one at a time. Drivers of one process are
independent of each other; several may be open on one device.
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
    """The device has less memory than was asked for."""


@dataclass(frozen=True)
class DeviceInfo:
    """What a device is. Sizes in bytes."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    total_memory: int
    shared_per_block: int
    """The most that a block may have with dynamic shared memory; static alone: 48 KiB."""
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
    """A loaded kernel: its prototype, the file it came from, and the driver's own handle."""

    signature: Signature
    source: str
    handle: Any


class Driver(Protocol):
    """A device's memory, kernels and streams. Addresses are integers; sizes are bytes."""

    name: str
    device_id: int
    info: DeviceInfo

    # Memory.
    def allocate(self, size: int) -> int:
        """The address of fresh memory of unspecified contents, aligned to 256 bytes.

        Raises:
            OutOfMemoryError: says what was asked and what is free.
        """

    def free(self, address: int) -> None:
        """Give back what `allocate` gave, once all work asked for so far is done with it."""

    def lend(self, address: int, size: int) -> None:
        """Say that of this allocation `size` bytes go to a new owner.

        A debugging driver fills them with NaN and watches what lies beyond; a GPU does nothing.
        """

    def free_memory(self) -> int:
        """How many bytes the device still has."""

    def pinned(self, size: int) -> HostArray:
        """A host array of uint8 that the device reads and writes while it computes."""

    # Copies. Host arrays are C-contiguous. With a stream they must be pinned, and stay as they are
    # until the stream is synchronized.
    def upload(self, host: HostArray, address: int, stream: Stream = None) -> None:
        """Copy the host array to the device; without a stream it may be changed on return."""

    def download(self, address: int, host: HostArray, stream: Stream = None) -> None:
        """Fill the host array from the device; without a stream the bytes are there on return."""

    def copy(self, src: int, dst: int, size: int, stream: Stream = None) -> None:
        """Copy on the device. The two may lie on different devices of one process."""

    def can_access_peer(self, peer: Any) -> bool:
        """Whether this device reads the memory of a peer's directly; opens the way where it does.

        `peer` is a driver of the same kind in this process.
        """

    def copy_peer(self, peer: Any, src: int, dst: int, size: int, stream: Stream = None) -> None:
        """Copy from a peer's memory to the own; see `can_access_peer`."""

    def fill_bytes(self, address: int, value: int, size: int, stream: Stream = None) -> None:
        """Set every byte to `value` (0 to 255)."""

    # Kernels.
    def load(self, source: str) -> Mapping[str, Kernel]:
        """The kernels of cuda_kernels/<source>.cu by name; built if need be, loaded once.

        Raises:
            KernelBuildError: the compiler refuses; carries its words.
            DeviceError: there is no compiler, or the device is too old for this file.
        """

    def constants(self, source: str) -> Mapping[str, int]:
        """The `constexpr int` at file scope of cuda_kernels/<source>.cu."""

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
            DeviceError: grid, block, shared memory or arguments are not what kernel and device
                allow; the emulator: what the kernel did wrong, in which block and thread.
        """

    # Order.
    def stream(self) -> Stream:
        """A new stream, independent of the compute stream."""

    def native_stream(self, stream: Stream) -> int:
        """What libraries of CUDA's take for the stream; its device is then the thread's own."""

    def event(self) -> Event:
        """A new event."""

    def record(self, event: Event, stream: Stream = None) -> None:
        """Put the event behind all work of the stream so far."""

    def wait(self, event: Event, stream: Stream = None) -> None:
        """Let later work of the stream begin after the event."""

    def finish(self, event: Event) -> None:
        """Wait, on the host, for an event. One that was never recorded has passed."""

    def synchronize(self, stream: Stream = None) -> None:
        """Wait for a stream; without one, for everything asked of this driver."""

    # Launches that are repeated.
    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what `work` asks of the compute stream, without doing it.

        `work` launches, copies on the device and fills; it neither allocates device memory, nor
        loads kernels, nor moves data to or from the host, nor waits: let it have run once before,
        so that everything is loaded and the workspace has its size. Arguments are kept as they
        are: a replay reads and writes the same addresses.
        """

    def replay(self, graph: Graph) -> None:
        """Do what was recorded, on the compute stream, at the cost of one launch."""

    def close(self) -> None:
        """Release the device. Calls after it are errors, but for `free` and `close`."""


def expect_contiguous(what: str, host: HostArray) -> None:
    """Refuse a host array that is not one run of bytes.

    Raises:
        DeviceError: it is strided.
    """
    if not host.flags.c_contiguous:
        raise DeviceError(
            f"{what}: a host array with strides {host.strides} for shape {host.shape}; expected a "
            "C-contiguous one; use numpy.ascontiguousarray"
        )


def refused_in_capture(driver: Driver, what: str) -> DeviceError:
    """The error for what `Driver.capture` does not allow."""
    return DeviceError(
        f"{driver.name} {driver.device_id}: {what} while launches are captured; expected launches, "
        "copies on the device and fills alone; do it before"
    )


def checked_launch(
    info: DeviceInfo, kernel: Kernel, grid: Extent, block: Extent, shared_bytes: int
) -> bool:
    """Whether there is anything to run; both drivers refuse the same launches in the same words.

    Raises:
        DeviceError: grid, block or shared memory are beyond the limits.
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
            "and 65535 along y and z; let a thread do more, or order the grid otherwise"
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
        DeviceError: an array's dtype is not the parameter's, or an array stands for a scalar.
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
