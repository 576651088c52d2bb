"""NCCL as a transport (extra: nccl): it sends and receives arrays and adds nothing."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.errors import DeviceError, TrainingError
from runtime.parallel.collective import Collective, Message, Pending
from runtime.parallel.device_link import DeviceLink, Sizes

_NAME = "libnccl.so.2"
_ID_BYTES = 128
_BYTES = 0
"""ncclInt8: arrays are sent as bytes."""
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
    """The path of the extra's library, or the name for the system's loader."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder, "nccl", "lib", _NAME)
        if path.exists():
            return str(path)
    return _NAME


class NcclLibrary:
    """NCCL's functions; a status other than success raises."""

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
            DeviceError: the function failed; has NCCL's message.
        """
        status = getattr(self._dll, name)(*args)
        if status:
            message = self._dll.ncclGetErrorString(status).decode(errors="replace")
            raise DeviceError(
                f"transport 'nccl': {name}: {message}; expected success; run with NCCL_DEBUG=WARN "
                "for the reason, or use --transport auto"
            )


@functools.cache
def load_nccl(path: str) -> NcclLibrary:
    """The library at a path, opened once."""
    return NcclLibrary(path)


class NcclLink(DeviceLink):
    """See DeviceLink. The sends and receives of one post are one NCCL group, to avoid deadlock."""

    def __init__(self, backend: Any, inner: Collective) -> None:
        super().__init__(backend, inner)
        self._nccl = load_nccl(find_library())
        self._comm = _POINTER()
        self._failed = False
        self.driver.native_stream(self.stream)
        name = self._exchange_id()
        self._nccl.call("ncclCommInitRank", ctypes.byref(self._comm), self.size, name, self.rank)

    def _exchange_id(self) -> _UniqueId:
        """The communicator's id, which the first replica creates."""
        own = _UniqueId()
        if self.rank == 0:
            self._nccl.call("ncclGetUniqueId", ctypes.byref(own))
        words = np.frombuffer(bytes(own), self.backend.dtype)
        sizes = [[words.size]] + [[] for _ in range(self.size - 1)]
        incoming = self.inner.exchange([[words] if self.rank == 0 else []] * self.size, sizes)
        name = _UniqueId.from_buffer_copy(incoming[0][0].tobytes())
        self.inner.release()
        return name

    def start(
        self, outgoing: Sequence[Message], sizes: Sizes, incoming: list[Message], ready: Any
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
        """Wait on the host until all replicas have posted; on a device a wait would have no limit.

        Raises:
            TrainingError, PeerFailedError: see Pending.finish.
        """
        marker = [np.zeros(1, self.backend.dtype)]
        self.inner.exchange([marker] * self.size, [[1]] * self.size)

    def release(self) -> None:
        """See Collective. The arrays have been sent when `finish` returns."""
        self.inner.release()
        super().release()

    def abort(self) -> None:
        """See Collective."""
        self._failed = True
        super().abort()

    def close(self) -> None:
        """Destroy the communicator, or abort it after a failure."""
        if self._comm:
            name = "ncclCommAbort" if self._failed else "ncclCommDestroy"
            self._nccl.call(name, self._comm)
            self._comm = _POINTER()


class _Grouped:
    """See Pending."""

    def __init__(self, link: NcclLink, incoming: list[Message]) -> None:
        self._link, self._incoming = link, incoming

    def finish(self) -> list[Message]:
        """See Pending.finish. The compute stream waits for the copies, the host does not."""
        try:
            self._link.meet()
        except TrainingError:
            self._link.abort()
            raise
        self._link.passed()
        return self._incoming
