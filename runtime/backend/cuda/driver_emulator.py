"""The emulated device: .cu files compiled by g++, with guarded memory and varied thread order."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cuda_kernels import SOURCE_DIR
from cuda_kernels.host_build import SANITIZERS, build_module, build_runtime, expect_sanitizer
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
from runtime.backend.cuda.emulator_library import EmulatedModule, EmulatorLibrary, EmuLaunch, run
from runtime.backend.cuda.emulator_streams import EmulatedEvent, EmulatedGraph, EmulatedStream

ORDERS = {"forward": 0, "reversed": 1, "shuffled": 2}
# Which streams are delayed: none; all but the compute stream; the compute stream alone.
STREAMS = {"eager": (False, False), "late": (False, True), "early": (True, False)}
ARCH = (9, 0)


class EmulatorDriver:
    """See Driver. Detects faults that a GPU leaves undefined, and reports the kernel.

    order: the order in which threads run between barriers, and warps and blocks run: 'forward',
        'reversed' or 'shuffled' (by `seed`). A correct kernel gives the same bits in all three.
    streams: 'eager' executes work at once; with 'late' streams other than the compute stream
        execute nothing until something waits for them; with 'early' the compute stream is delayed
        in this way. A correct program gives the same bits in all three.
    sanitizer: 'address' or 'thread'; Python must run in host_build.sanitizer_environment.
    optimize: g++'s -O level for the kernels.
    memory: the size of the device's memory in bytes.
    peers: whether the device can read other devices' memory.
    """

    name = "emu"

    def __init__(
        self,
        device_id: int = 0,
        *,
        order: str = "forward",
        seed: int = 0,
        streams: str = "eager",
        sanitizer: str | None = None,
        optimize: int = 2,
        memory: int = 1 << 34,
        peers: bool = True,
    ) -> None:
        _expect("order", order, ORDERS)
        _expect("streams", streams, STREAMS)
        if sanitizer is not None:
            _expect("sanitizer", sanitizer, SANITIZERS)
            expect_sanitizer(sanitizer)
        self.device_id = device_id
        self.info = DeviceInfo(
            name="emulator (g++)",
            compute_capability=ARCH,
            multiprocessors=1,
            total_memory=memory,
            shared_per_block=227 << 10,
        )
        self._order, self._seed = ORDERS[order], seed
        self._sanitizer, self._optimize = sanitizer, optimize
        self._peers = peers
        self._compute = EmulatedStream(late=STREAMS[streams][0])
        self._others_late = STREAMS[streams][1]
        self._streams = [self._compute]
        self._capturing: EmulatedGraph | None = None
        self._sizes: dict[int, int] = {}
        self._manifests: dict[Path, Manifest] = {}
        self._loaded: dict[Path, Mapping[str, Kernel]] = {}
        self._runtime = build_runtime(sanitizer)
        self._library = EmulatorLibrary(self._runtime)

    def allocate(self, size: int) -> int:
        """See Driver.allocate."""
        self._outside_capture("allocate")
        free = self.free_memory()
        address = self._library.allocate(size) if size <= free else 0
        if not address:
            raise OutOfMemoryError(
                f"emu {self.device_id}: out of memory; asked for {size} bytes, free are {free} of "
                f"{self.info.total_memory}; use a smaller batch_size"
            )
        self._sizes[address] = size
        return address

    def free(self, address: int) -> None:
        """See Driver.free."""
        if address in self._sizes:
            if self._capturing is None:
                self._drain_all()
            self._library.free(address)
            del self._sizes[address]

    def lend(self, address: int, size: int) -> None:
        """See Driver.lend. Earlier work of the compute stream may use the memory until then."""
        self._submit(lambda: self._library.lend(address, size), None)

    def free_memory(self) -> int:
        """See Driver.free_memory."""
        return self.info.total_memory - sum(self._sizes.values())

    def pinned(self, size: int) -> HostArray:
        """See Driver.pinned."""
        return np.empty(size, np.uint8)

    def upload(self, host: HostArray, address: int, stream: EmulatedStream | None = None) -> None:
        """See Driver.upload."""
        self._outside_capture("upload")
        expect_contiguous("upload", host)
        source = host.copy() if stream is None and self._compute.late else host

        def work() -> None:
            self._library.expect_owned("upload", address, source.nbytes)
            ctypes.memmove(address, source.ctypes.data, source.nbytes)

        (stream or self._compute).submit(work)

    def download(self, address: int, host: HostArray, stream: EmulatedStream | None = None) -> None:
        """See Driver.download."""
        self._outside_capture("download")
        expect_contiguous("download", host)

        def work() -> None:
            self._library.expect_owned("download", address, host.nbytes)
            ctypes.memmove(host.ctypes.data, address, host.nbytes)

        (stream or self._compute).submit(work)
        if stream is None:
            self._compute.drain()

    def copy(self, src: int, dst: int, size: int, stream: EmulatedStream | None = None) -> None:
        """See Driver.copy."""

        def work() -> None:
            self._library.expect_owned("copy from", src, size)
            self._library.expect_owned("copy to", dst, size)
            ctypes.memmove(dst, src, size)

        self._submit(work, stream)

    def can_access_peer(self, peer: EmulatorDriver) -> bool:
        """See Driver.can_access_peer."""
        return self._peers

    def copy_peer(
        self,
        peer: EmulatorDriver,
        src: int,
        dst: int,
        size: int,
        stream: EmulatedStream | None = None,
    ) -> None:
        """See Driver.copy_peer."""

        def work() -> None:
            peer._library.expect_owned("peer copy from", src, size)
            self._library.expect_owned("peer copy to", dst, size)
            ctypes.memmove(dst, src, size)

        self._submit(work, stream)

    def fill_bytes(
        self, address: int, value: int, size: int, stream: EmulatedStream | None = None
    ) -> None:
        """See Driver.fill_bytes."""

        def work() -> None:
            self._library.expect_owned("fill", address, size)
            ctypes.memset(address, value, size)

        self._submit(work, stream)

    def load(self, source: str | Path) -> Mapping[str, Kernel]:
        """See Driver.load. `source` may also be the path of a .cu in another folder."""
        path = _path(source)
        if path not in self._loaded:
            self._outside_capture("load")
            manifest = self._manifest(path)
            built = build_module(manifest, self._runtime, self._sanitizer, self._optimize)
            module = EmulatedModule(built)
            self._loaded[path] = {
                name: Kernel(signature, path.stem, module.entry(signature))
                for name, signature in manifest.kernels.items()
            }
        return self._loaded[path]

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
        stream: EmulatedStream | None = None,
    ) -> None:
        """See Driver.launch."""
        packed = kernel.signature.pack(argument_values(kernel.signature, args))
        if not checked_launch(self.info, kernel, grid, block, shared_bytes):
            return
        name = kernel.signature.name
        settings = EmuLaunch(name.encode(), grid, block, shared_bytes, self._order, self._seed)
        arrays = [arg for arg in args if isinstance(arg, DeviceArray) and arg.size]

        def work() -> None:
            for array in arrays:
                self._library.expect_owned(f"kernel '{name}': array", array.address, array.nbytes)
            run(kernel.handle, settings, packed)
            self._library.check_fences(name)

        self._submit(work, stream)

    def stream(self) -> EmulatedStream:
        """See Driver.stream."""
        stream = EmulatedStream(self._others_late)
        self._streams.append(stream)
        return stream

    def native_stream(self, stream: EmulatedStream) -> int:
        """See Driver.native_stream. A library writes at once, so all earlier work is done first."""
        stream.drain()
        return id(stream)

    def event(self) -> EmulatedEvent:
        """See Driver.event."""
        return EmulatedEvent()

    def record(self, event: EmulatedEvent, stream: EmulatedStream | None = None) -> None:
        """See Driver.record."""
        self._outside_capture("record")
        event.record(stream or self._compute)

    def wait(self, event: EmulatedEvent, stream: EmulatedStream | None = None) -> None:
        """See Driver.wait."""
        self._outside_capture("wait")
        (stream or self._compute).submit(event.wait)

    def finish(self, event: EmulatedEvent) -> None:
        """See Driver.finish."""
        self._outside_capture("finish")
        event.wait()

    def synchronize(self, stream: EmulatedStream | None = None) -> None:
        """See Driver.synchronize."""
        self._outside_capture("synchronize")
        if stream is None:
            self._drain_all()
        else:
            stream.drain()

    def capture(self, work: Callable[[], None]) -> EmulatedGraph:
        """See Driver.capture."""
        self._outside_capture("capture")
        graph = self._capturing = EmulatedGraph()
        try:
            work()
        finally:
            self._capturing = None
        return graph

    def replay(self, graph: EmulatedGraph) -> None:
        """See Driver.replay."""
        for work in graph.work:
            self._compute.submit(work)

    def close(self) -> None:
        """See Driver.close."""
        self._drain_all()
        for address in list(self._sizes):
            self.free(address)

    def _submit(self, work: Callable[[], None], stream: EmulatedStream | None) -> None:
        if stream is None and self._capturing is not None:
            self._capturing.work.append(work)
        else:
            (stream or self._compute).submit(work)

    def _drain_all(self) -> None:
        for stream in self._streams:
            stream.drain()

    def _manifest(self, path: Path) -> Manifest:
        if path not in self._manifests:
            self._manifests[path] = read_manifest(path)
        return self._manifests[path]

    def _outside_capture(self, operation: str) -> None:
        if self._capturing is not None:
            raise refused_in_capture(self, operation)


def _path(source: str | Path) -> Path:
    return source if isinstance(source, Path) else SOURCE_DIR / f"{source}.cu"


def _expect(option: str, value: str, accepted: Mapping[str, object]) -> None:
    if value not in accepted:
        raise DeviceError(
            f"backend 'emu': {option} is {value!r}; expected one of {', '.join(accepted)}; use one "
            "of them"
        )
