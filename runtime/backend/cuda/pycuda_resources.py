"""What PyCudaDriver holds of a device, and what it hands out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.backend.base import HostArray
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.driver import Kernel
from runtime.backend.cuda.pycuda_context import PrimaryContext
from runtime.backend.cuda.pycuda_graph import GraphLibrary


class PyCudaEvent:
    """A CUDA event that goes back to its driver when nobody refers to it any more.

    PyCUDA's own would be destroyed in whichever thread lets go last, which it cannot do.
    """

    __slots__ = ("_spare", "raw")

    def __init__(self, raw: Any, spare: deque[Any]) -> None:
        self.raw = raw
        self._spare = spare

    def __del__(self) -> None:
        self._spare.append(self.raw)


class PyCudaGraph:
    """Recorded launches, and the arrays that they read and write.

    Any thread may be the last to let go: the driver destroys it at its next occasion.
    """

    def __init__(self, handle: int, arrays: list[DeviceArray], dropped: deque[int]) -> None:
        self.handle = handle
        self.arrays = arrays
        self._dropped = dropped

    def __del__(self) -> None:
        self._dropped.append(self.handle)


class Resources:
    """Everything that has to be given back in the context, and before it goes.

    It outlives the driver that fills it, so that a driver nobody closed is closed all the same.
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
        """The library's calls for graphs, looked up when first needed."""
        if self._graphs is None:
            self._graphs = GraphLibrary()
        return self._graphs

    @property
    def graphs_held(self) -> int:
        return len(self._graph_handles)

    def keep_graph(self, handle: int, arrays: list[DeviceArray]) -> PyCudaGraph:
        """Hand out a graph, and destroy those that nobody refers to any more."""
        while self.dropped_graphs:
            dropped = self.dropped_graphs.popleft()
            self._graph_handles.discard(dropped)
            self.graphs.destroy(dropped)
        self._graph_handles.add(handle)
        return PyCudaGraph(handle, arrays, self.dropped_graphs)

    def close(self) -> None:
        """Give everything back. A second call does nothing."""
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
