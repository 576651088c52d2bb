"""The resources of a device that PyCudaDriver uses: context, events, graphs and memory.

The context is the device's primary one, which CUDA's run-time API and NCCL use as well. CUDA and
PyCUDA keep a stack of contexts for each thread. Here the stack has at most one entry. It is
replaced when a thread calls another device, and removed when the thread ends, as PyCUDA requires.
CUDA graphs are called in the driver library, because PyCUDA does not offer them.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DeviceError
from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Kernel

_RELAXED = 2  # other threads may use the device during a capture
_LIBRARY = "libcuda.so.1"


class _PushedContext:
    """A context on the calling thread's stack while this object lives."""

    def __init__(self, cuda: Any, context: Any) -> None:
        context.push()
        self.context = context
        self._pop = cuda.Context.pop
        self._detached = False

    def detach(self) -> None:
        """Release the context; PyCUDA removes it from its stack itself."""
        self._detached = True
        self.context.detach()

    def __del__(self) -> None:
        if not self._detached:
            self._pop()


# CUDA has this state for each thread of the process; an entry is removed when its thread ends.
_threads = threading.local()


def leave_thread() -> None:
    """Remove the calling thread's context, if it has one."""
    _threads.pushed = None


class PrimaryContext:
    """The primary context of one device, retained until `release`."""

    def __init__(self, cuda: Any, device: Any) -> None:
        self._cuda = cuda
        self._context = device.retain_primary_context()
        self._reached: list[Any] = []
        # PyCUDA aborts the process if the main thread ends with a context on its stack.
        atexit.unregister(leave_thread)
        atexit.register(leave_thread)

    def attach(self) -> None:
        """Make it current in the calling thread."""
        pushed = getattr(_threads, "pushed", None)
        if pushed is None or pushed.context is not self._context:
            # The old context must be popped before the new one is pushed.
            del pushed
            leave_thread()
            _threads.pushed = _PushedContext(self._cuda, self._context)

    @property
    def raw(self) -> Any:
        """The context object of PyCUDA."""
        return self._context

    def reach(self, device: Any, other: Any, context: PrimaryContext) -> bool:
        """Whether the device can read another's memory; enables direct access if it can."""
        if other == device:
            return True
        if not device.can_access_peer(other):
            return False
        self.attach()
        if other not in self._reached:
            try:
                self._cuda.Context.enable_peer_access(context.raw)
            except self._cuda.LogicError as cause:
                # Another driver of this device, which shares the context, has enabled it.
                if "already enabled" not in str(cause):
                    raise
            self._reached.append(other)
        return True

    def release(self) -> None:
        """Release it; everything that was created in it must be destroyed."""
        self.attach()
        _threads.pushed.detach()
        _threads.pushed = None


class GraphLibrary:
    """The calls of the driver library that record work and repeat it.

    Raises:
        DeviceError: every method except `abandon`: the library lacks the call, or the call fails.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_LIBRARY)

    def begin(self, stream: int) -> None:
        """Record the work that is submitted to the stream from now on."""
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_RELAXED))

    def end(self, stream: int) -> int:
        """Stop recording; returns the handle of a graph that can be launched."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            self._call(
                "cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0)
            )
        finally:
            self._call("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def abandon(self, stream: int) -> None:
        """Stop recording after an error, and destroy the graph."""
        graph = ctypes.c_void_p()
        self._library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
        if graph.value:
            self._library.cuGraphDestroy(graph)

    def launch(self, graph: int, stream: int) -> None:
        """Run the recorded work."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy(self, graph: int) -> None:
        """Destroy a graph."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise DeviceError(
                f"gpu: the driver library has no {name}; expected CUDA 11.4 or newer for captured "
                "launches; update the NVIDIA driver, or use --launch-by-launch"
            )
        status = function(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            words = text.value.decode() if text.value else f"error {status}"
            raise DeviceError(
                f"gpu: {name} failed: {words}; expected work that can be captured: launches, "
                "copies on the device and fills; do other work before, or use --launch-by-launch"
            )


class PyCudaEvent:
    """A CUDA event that returns to its driver when it is no longer referenced.

    PyCUDA would destroy it in the thread that drops the last reference, which may have no context.
    """

    __slots__ = ("_spare", "raw")

    def __init__(self, raw: Any, spare: deque[Any]) -> None:
        self.raw = raw
        self._spare = spare

    def __del__(self) -> None:
        self._spare.append(self.raw)


class PyCudaGraph:
    """Recorded launches, and the arrays that they read and write.

    Any thread may drop the last reference: the driver destroys the graph when it makes the next.
    """

    def __init__(self, handle: int, arrays: list[DeviceArray], dropped: deque[int]) -> None:
        self.handle = handle
        self.arrays = arrays
        self._dropped = dropped

    def __del__(self) -> None:
        self._dropped.append(self.handle)


class Resources:
    """Everything that must be destroyed in the context, and before the context is released.

    It outlives its driver, so that a driver that was not closed is closed by its finalizer.
    """

    def __init__(self, context: PrimaryContext) -> None:
        self.context = context
        self.allocations: dict[int, Any] = {}
        self.pinned: list[HostArray] = []
        self.streams: list[Any] = []
        self.spare_events: deque[Any] = deque()
        self.modules: list[Any] = []
        self.kernels: dict[Path, Mapping[str, Kernel]] = {}
        self.dropped_graphs: deque[int] = deque()
        self._graph_handles: set[int] = set()
        self._graphs: GraphLibrary | None = None
        self._closed = False

    @property
    def graphs(self) -> GraphLibrary:
        """The calls for graphs, loaded at the first use."""
        if self._graphs is None:
            self._graphs = GraphLibrary()
        return self._graphs

    @property
    def graphs_held(self) -> int:
        return len(self._graph_handles)

    def keep_graph(self, handle: int, arrays: list[DeviceArray]) -> PyCudaGraph:
        """Wrap a new graph, and destroy those that are no longer referenced."""
        while self.dropped_graphs:
            dropped = self.dropped_graphs.popleft()
            self._graph_handles.discard(dropped)
            self.graphs.destroy(dropped)
        self._graph_handles.add(handle)
        return PyCudaGraph(handle, arrays, self.dropped_graphs)

    def close(self) -> None:
        """Destroy everything and release the context. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self.context.attach()
        for handle in self._graph_handles:
            self.graphs.destroy(handle)
        for allocation in self.allocations.values():
            allocation.free()
        self.allocations.clear()
        self.kernels.clear()
        for held in (self.modules, self.streams, self.pinned, self.spare_events):
            held.clear()
        self.context.release()
