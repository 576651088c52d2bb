"""CUDA graphs by the driver library itself, as PyCUDA does not offer them."""

from __future__ import annotations

import ctypes
from typing import Any

from prototxt_gen.errors import DeviceError

_RELAXED = 2  # other threads may go on using the device while this one captures
_LIBRARY = "libcuda.so.1"


class GraphLibrary:
    """The handful of calls that record work and repeat it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_LIBRARY)

    def begin(self, stream: int) -> None:
        """Record what is asked of the stream from now on."""
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_RELAXED))

    def end(self, stream: int) -> int:
        """Stop recording; what was recorded, ready to run."""
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
        """Stop recording and forget it, after an error while recording."""
        graph = ctypes.c_void_p()
        self._library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
        if graph.value:
            self._library.cuGraphDestroy(graph)

    def launch(self, graph: int, stream: int) -> None:
        """Do what was recorded."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy(self, graph: int) -> None:
        """Forget it."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise DeviceError(
                f"gpu: the driver library has no {name}; expected CUDA 11.4 or newer for captured "
                "launches; update the NVIDIA driver, or say --launch-by-launch"
            )
        status = function(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            words = text.value.decode() if text.value else f"error {status}"
            raise DeviceError(
                f"gpu: {name} failed: {words}; expected work that can be captured: launches, "
                "copies on the device and fills; do the rest before, or say --launch-by-launch"
            )
