"""NCCL as a transport (extra: nccl): slices are sent and received; nothing is added up by it."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.errors import DeviceError, TrainingError
from runtime.parallel.collective import Collective, Parcel, Pending
from runtime.parallel.device_link import DeviceLink, Sizes

_NAME = "libnccl.so.2"
_ID_BYTES = 128
_BYTES = 0
"""ncclInt8: what moves is bytes to NCCL."""
_POINTER = ctypes.c_void_p


class _UniqueId(ctypes.Structure):
    _fields_ = [("internal", ctypes.c_char * _ID_BYTES)]


_PROTOTYPES: dict[str, list[Any]] = {
    "ncclGetUniqueId": [ctypes.POINTER(_UniqueId)],
    "ncclCommInitRank": [ctypes.POINTER(_POINTER), ctypes.c_int, _UniqueId, ctypes.c_int],
    "ncclCommDestroy": [_POINTER],
    "ncclCommAbort": [_POINTER],
    "ncclGroupStart": [],
    "ncclGroupEnd": [],
    "ncclSend": [_POINTER, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, _POINTER, _POINTER],
    "ncclRecv": [_POINTER, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, _POINTER, _POINTER],
}


def find_library() -> str:
    """The library of the extra, or else whichever the system's loader finds."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder, "nccl", "lib", _NAME)
        if path.exists():
            return str(path)
    return _NAME


class NcclLibrary:
    """NCCL's calls; a status that is not success raises."""

    def __init__(self, path: str) -> None:
        """Load the library.

        Raises:
            DeviceError: it is missing.
        """
        try:
            self._dll = ctypes.CDLL(path)
        except OSError as cause:
            raise DeviceError(
                f"transport 'nccl': {path} cannot be loaded: {cause}; expected NVIDIA's NCCL; "
                "install the extra: pip install 'verydeep[nccl]', or use --transport auto"
            ) from cause
        self._dll.ncclGetErrorString.restype = ctypes.c_char_p
        self._dll.ncclGetErrorString.argtypes = [ctypes.c_int]
        for name, arguments in _PROTOTYPES.items():
            function = getattr(self._dll, name)
            function.restype, function.argtypes = ctypes.c_int, arguments

    def call(self, name: str, *args: Any) -> None:
        """Call a function.

        Raises:
            DeviceError: NCCL's own words.
        """
        status = getattr(self._dll, name)(*args)
        if status:
            said = self._dll.ncclGetErrorString(status).decode(errors="replace")
            raise DeviceError(
                f"transport 'nccl': {name}: {said}; expected success; run with NCCL_DEBUG=WARN to "
                "see why, or use --transport auto"
            )


@functools.cache
def load_nccl(path: str) -> NcclLibrary:
    """The library at a path, opened once."""
    return NcclLibrary(path)


class NcclLink(DeviceLink):
    """See DeviceLink. Sends and receives of one post are one group, so none waits for another."""

    def __init__(self, backend: Any, inner: Collective) -> None:
        super().__init__(backend, inner)
        self._nccl = load_nccl(find_library())
        self._comm = _POINTER()
        self._failed = False
        self.driver.native_stream(self.stream)
        name = self._agree()
        self._nccl.call("ncclCommInitRank", ctypes.byref(self._comm), self.size, name, self.rank)

    def _agree(self) -> _UniqueId:
        """The name of this run's communicator, which the first replica makes."""
        own = _UniqueId()
        if self.rank == 0:
            self._nccl.call("ncclGetUniqueId", ctypes.byref(own))
        words = np.frombuffer(bytes(own), self.backend.dtype)
        sizes = [[words.size]] + [[] for _ in range(self.size - 1)]
        told = self.inner.exchange([[words] if self.rank == 0 else []] * self.size, sizes)
        name = _UniqueId.from_buffer_copy(told[0][0].tobytes())
        self.inner.release()
        return name

    def start(
        self, outgoing: Sequence[Parcel], sizes: Sizes, incoming: list[Parcel], ready: Any
    ) -> Pending:
        """See DeviceLink.start."""
        stream = self.driver.native_stream(self.stream)
        call = self._nccl.call
        call("ncclGroupStart")
        for peer in range(self.size):
            if peer == self.rank:
                continue
            for name, arrays in (("ncclSend", outgoing[peer]), ("ncclRecv", incoming[peer])):
                for array in arrays:
                    call(name, array.address, array.nbytes, _BYTES, peer, self._comm, stream)
        call("ncclGroupEnd")
        return _Grouped(self, incoming)

    def meet(self) -> None:
        """Make sure on the host that everybody has posted: devices would wait for ever."""
        here = [np.zeros(1, self.backend.dtype)]
        self.inner.exchange([here] * self.size, [[1]] * self.size)

    def release(self) -> None:
        """See Collective. What was sent has gone once `finish` has been passed."""
        self.inner.release()
        super().release()

    def abort(self) -> None:
        """See Collective."""
        self._failed = True
        super().abort()

    def close(self) -> None:
        """Give the communicator back; one that a failure has left waiting is broken off."""
        if self._comm:
            name = "ncclCommAbort" if self._failed else "ncclCommDestroy"
            self._nccl.call(name, self._comm)
            self._comm = _POINTER()


class _Grouped:
    """See Pending."""

    def __init__(self, link: NcclLink, incoming: list[Parcel]) -> None:
        self._link, self._incoming = link, incoming

    def finish(self) -> list[Parcel]:
        """See Pending.finish. Later compute work waits, the host does not."""
        try:
            self._link.meet()
        except TrainingError:
            self._link.abort()
            raise
        self._link.passed()
        return self._incoming
