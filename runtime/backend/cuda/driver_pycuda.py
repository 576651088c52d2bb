"""A GPU by PyCUDA, which only this module imports, and only when a GPU is requested."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cuda_kernels import SOURCE_DIR
from cuda_kernels.build import build_binary, choose_target, find_nvcc
from cuda_kernels.manifest import Manifest, read_manifest
from prototxt_gen.errors import DeviceError
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import (
    Argument,
    DeviceInfo,
    Extent,
    Kernel,
    OutOfMemoryError,
    argument_values,
    checked_launch,
    expect_contiguous,
    refused_in_capture,
)
from runtime.backend.cuda.pycuda_device import STATIC_SHARED_LIMIT, describe, open_device
from runtime.backend.cuda.pycuda_resources import (
    PrimaryContext,
    PyCudaEvent,
    PyCudaGraph,
    Resources,
)
from runtime.backend.cuda.upload_ring import UploadRing

_NON_BLOCKING = 1  # no order with the default stream, which is not used here


def import_pycuda() -> Any:
    """Import and initialise pycuda.driver.

    Raises:
        DeviceError: PyCUDA, the NVIDIA driver or a GPU is missing; the message names it.
    """
    try:
        import pycuda.driver as cuda
    except ImportError as cause:
        if "libcuda" in str(cause):
            raise DeviceError(
                f"backend 'gpu': there is no NVIDIA driver on this machine ({cause}); expected "
                "libcuda.so.1; install the driver, or use the backend 'cpu' (solver_mode: CPU)"
            ) from cause
        raise DeviceError(
            f"backend 'gpu': PyCUDA cannot be imported ({cause}); expected the extra [cuda]; "
            "install it: pip install 'verydeep[cuda]' (it needs the CUDA toolkit)"
        ) from cause
    # The driver reads this when it is initialised: a module loaded lazily at its first launch may
    # wait for all work of the device.
    os.environ.setdefault("CUDA_MODULE_LOADING", "EAGER")
    try:
        cuda.init()
    except cuda.Error as cause:
        raise DeviceError(
            f"backend 'gpu': the NVIDIA driver finds no GPU ({cause}); expected one that "
            "nvidia-smi lists; check it, or use the backend 'cpu' (solver_mode: CPU)"
        ) from cause
    return cuda


def query_devices(numbers: Sequence[int] | None) -> dict[int, DeviceInfo]:
    """Properties of these devices, or of all for None, without opening them.

    Raises:
        DeviceError: PyCUDA, the NVIDIA driver or a GPU is missing; the message names it.
    """
    cuda = import_pycuda()
    if numbers is None:
        # At least device 0 is described, so that a machine without GPUs raises an error.
        numbers = range(max(1, int(cuda.Device.count())))
    return {number: describe(cuda, open_device(cuda, number)) for number in numbers}


class PyCudaDriver:
    """See Driver. Calls may come from any thread: each makes the context current."""

    name = "gpu"

    def __init__(self, device_id: int = 0) -> None:
        self._cuda = import_pycuda()
        self.device_id = device_id
        self._device = open_device(self._cuda, device_id)
        self.info = describe(self._cuda, self._device)
        try:
            self._context = PrimaryContext(self._cuda, self._device)
            self._context.attach()
            self._compute = self._cuda.Stream(_NON_BLOCKING)
        except self._cuda.Error as cause:
            raise DeviceError(
                f"gpu {device_id} ({self.info.name}): it cannot be opened ({cause}); expected a "
                "GPU that is free; nvidia-smi lists the processes that use it"
            ) from cause
        self._own = Resources(self._context)
        self._own.streams.append(self._compute)
        weakref.finalize(self, self._own.close)
        self._manifests: dict[Path, Manifest] = {}
        self._granted: dict[tuple[str, str], int] = {}
        self._recorded: list[DeviceArray] | None = None
        self._uploads = UploadRing(self._compute)

    def allocate(self, size: int) -> int:
        """See Driver.allocate."""
        self._outside_capture("allocate")
        self._context.attach()
        try:
            allocation = self._cuda.mem_alloc(max(size, 1))
        except self._cuda.MemoryError as cause:
            raise OutOfMemoryError(
                f"gpu {self.device_id}: out of memory; asked for {size} bytes, free are "
                f"{self.free_memory()} of {self.info.total_memory}; use a smaller batch_size"
            ) from cause
        except self._cuda.Error as cause:
            raise self._failed("memory allocation", cause) from cause
        self._own.allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        """See Driver.free."""
        allocation = self._own.allocations.pop(address, None)
        if allocation is not None:
            self._call("freeing memory", allocation.free)

    def lend(self, address: int, size: int) -> None:
        """See Driver.lend."""

    def free_memory(self) -> int:
        """See Driver.free_memory."""
        return int(self._call("asking for free memory", self._cuda.mem_get_info)[0])

    def pinned(self, size: int) -> HostArray:
        """See Driver.pinned. It stays until the driver is closed."""
        array: HostArray = self._call(
            "allocation of pinned memory", self._cuda.pagelocked_empty, max(size, 1), np.uint8
        )
        self._own.pinned.append(array)
        return array[:size]

    def upload(self, host: HostArray, address: int, stream: Any = None) -> None:
        """See Driver.upload. Without a stream the copy passes through pinned memory."""
        self._outside_capture("upload")
        expect_contiguous("upload", host)
        if not host.nbytes:
            return
        if stream is None:
            self._uploads.send(self, host, address)
        else:
            self._call("upload", self._cuda.memcpy_htod_async, address, host, stream)

    def download(self, address: int, host: HostArray, stream: Any = None) -> None:
        """See Driver.download."""
        self._outside_capture("download")
        expect_contiguous("download", host)
        if host.nbytes:
            queue = stream or self._compute
            self._call("download", self._cuda.memcpy_dtoh_async, host, address, queue)
            if stream is None:
                self._call("download", queue.synchronize)

    def copy(self, src: int, dst: int, size: int, stream: Any = None) -> None:
        """See Driver.copy."""
        if size:
            queue = stream or self._compute
            self._call("copy", self._cuda.memcpy_dtod_async, dst, src, size, queue)

    def can_access_peer(self, peer: PyCudaDriver) -> bool:
        """See Driver.can_access_peer. Two drivers of one device share its context."""
        return self._context.reach(self._device, peer._device, peer._context)

    def copy_peer(
        self, peer: PyCudaDriver, src: int, dst: int, size: int, stream: Any = None
    ) -> None:
        """See Driver.copy_peer."""
        if size:
            ends = self._context.raw, peer._context.raw
            queue = stream or self._compute
            self._call("peer copy", self._cuda.memcpy_peer_async, dst, src, size, *ends, queue)

    def fill_bytes(self, address: int, value: int, size: int, stream: Any = None) -> None:
        """See Driver.fill_bytes."""
        if size:
            queue = stream or self._compute
            self._call("fill", self._cuda.memset_d8_async, address, value, size, queue)

    def load(self, source: str | Path) -> Mapping[str, Kernel]:
        """See Driver.load. `source` may also be the path of a .cu in another folder."""
        path = _path(source)
        if path not in self._own.kernels:
            manifest = self._manifest(path)
            target = choose_target(self.info.arch, find_nvcc().architectures)
            image = build_binary(manifest, target).path.read_bytes()
            # PTX is text that ends at a null byte.
            module = self._call(
                f"loading {path.name}", self._cuda.module_from_buffer, image + b"\0"
            )
            self._own.modules.append(module)
            self._own.kernels[path] = {
                name: Kernel(signature, path.stem, self._function(module, name))
                for name, signature in manifest.kernels.items()
            }
        return self._own.kernels[path]

    def constants(self, source: str | Path) -> Mapping[str, int]:
        """See Driver.constants."""
        return self._manifest(_path(source)).constants

    def launch(
        self,
        kernel: Kernel,
        grid: Extent,
        block: Extent,
        args: Sequence[Argument],
        shared_bytes: int = 0,
        stream: Any = None,
    ) -> None:
        """See Driver.launch."""
        signature = kernel.signature
        packed = signature.pack(argument_values(signature, args))
        if not checked_launch(self.info, kernel, grid, block, shared_bytes):
            return
        self._context.attach()
        if self._recorded is not None and stream is None:
            self._recorded += [arg for arg in args if isinstance(arg, DeviceArray)]
        try:
            if shared_bytes > STATIC_SHARED_LIMIT:
                self._grant(kernel, shared_bytes)
            # prepared_async_call would pack again and set the block size by a deprecated call.
            kernel.handle._launch_kernel(grid, block, packed, shared_bytes, stream or self._compute)
        except self._cuda.Error as cause:
            raise self._failed(f"launch of kernel '{signature.name}'", cause) from cause

    def stream(self) -> Any:
        """See Driver.stream. It stays until the driver is closed."""
        stream = self._call("a new stream", self._cuda.Stream, _NON_BLOCKING)
        self._own.streams.append(stream)
        return stream

    def native_stream(self, stream: Any) -> int:
        """See Driver.native_stream."""
        self._context.attach()
        return int(stream.handle)

    def event(self) -> PyCudaEvent:
        """See Driver.event."""
        if self._own.spare_events:
            return PyCudaEvent(self._own.spare_events.popleft(), self._own.spare_events)
        return PyCudaEvent(self._call("a new event", self._cuda.Event), self._own.spare_events)

    def record(self, event: PyCudaEvent, stream: Any = None) -> None:
        """See Driver.record."""
        self._outside_capture("record")
        self._call("recording an event", event.raw.record, stream or self._compute)

    def wait(self, event: PyCudaEvent, stream: Any = None) -> None:
        """See Driver.wait."""
        self._outside_capture("wait")
        queue = stream or self._compute
        self._call("waiting for an event", queue.wait_for_event, event.raw)

    def finish(self, event: PyCudaEvent) -> None:
        """See Driver.finish."""
        self._outside_capture("finish")
        self._call("waiting for an event", event.raw.synchronize)

    def synchronize(self, stream: Any = None) -> None:
        """See Driver.synchronize."""
        self._outside_capture("synchronize")
        wait = self._cuda.Context.synchronize if stream is None else stream.synchronize
        self._call("waiting for the device", wait)

    def capture(self, work: Callable[[], None]) -> PyCudaGraph:
        """See Driver.capture."""
        self._outside_capture("capture")
        self._context.attach()
        graphs, stream = self._own.graphs, self._compute.handle
        arrays: list[DeviceArray] = []
        self._recorded = arrays
        graphs.begin(stream)
        try:
            work()
        except BaseException:
            graphs.abandon(stream)
            raise
        finally:
            self._recorded = None
        return self._own.keep_graph(graphs.end(stream), arrays)

    def replay(self, graph: PyCudaGraph) -> None:
        """See Driver.replay."""
        self._context.attach()
        self._own.graphs.launch(graph.handle, self._compute.handle)

    @property
    def graphs(self) -> int:
        """The number of graphs of this driver on the device."""
        return self._own.graphs_held

    def close(self) -> None:
        """See Driver.close."""
        self._compute = None
        self._own.close()

    def _grant(self, kernel: Kernel, shared_bytes: int) -> None:
        """Raise a kernel's limit of dynamic shared memory, once, where it needs more than usual."""
        key = kernel.source, kernel.signature.name
        if shared_bytes > self._granted.get(key, 0):
            attribute = self._cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
            kernel.handle.set_attribute(attribute, shared_bytes)
            self._granted[key] = shared_bytes

    def _function(self, module: Any, name: str) -> Any:
        """A function that is loaded now, since a first launch may wait for all work of the device.

        Reading an attribute loads it, also where the process loads modules lazily.
        """
        function = self._call(f"loading kernel '{name}'", module.get_function, name)
        attribute = self._cuda.function_attribute.NUM_REGS
        self._call(f"loading kernel '{name}'", function.get_attribute, attribute)
        return function

    def _call(self, operation: str, function: Callable[..., Any], *args: Any) -> Any:
        self._context.attach()
        try:
            return function(*args)
        except self._cuda.Error as cause:
            raise self._failed(operation, cause) from cause

    def _failed(self, operation: str, cause: Exception) -> DeviceError:
        return DeviceError(
            f"gpu {self.device_id} ({self.info.name}): {operation}: {cause}; expected success; an "
            "earlier kernel may have failed; run the same with --device emu, which names it"
        )

    def _outside_capture(self, operation: str) -> None:
        if self._recorded is not None:
            raise refused_in_capture(self, operation)

    def _manifest(self, path: Path) -> Manifest:
        if path not in self._manifests:
            self._manifests[path] = read_manifest(path)
        return self._manifests[path]


def _path(source: str | Path) -> Path:
    return source if isinstance(source, Path) else SOURCE_DIR / f"{source}.cu"
