"""NCCL as a transport (extras: nccl, nccl13): it sends and receives arrays and adds nothing."""

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
                "install the extra: pip install 'verydeep[nccl]', or 'verydeep[nccl13]' with CUDA "
                "13; or use --transport auto"
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
    """See DeviceLink. The sends and receives of one post are one NCCL group, to avoid deadlock.

    A group runs on the device until all replicas have submitted theirs. A thread that waits for its
    device meanwhile, for example in an allocation, may hold the interpreter's lock, which a replica
    of the same process needs in order to submit. So the replicas meet on the host before a group,
    and again after it: when `start` returns, no group waits for a host.
    """

    def __init__(self, backend: Any, inner: Collective) -> None:
        super().__init__(backend, inner)
        self._nccl = load_nccl(find_library())
        self._comm = _POINTER()
        self._failed = False
        self.driver.native_stream(self.stream)
        name = self._exchange_id()
        self._nccl.call("ncclCommInitRank", ctypes.byref(self._comm), self.size, name, self.rank)
        self._warm_up()

    def _warm_up(self) -> None:
        """Exchange one number, so that NCCL connects and loads its kernels before training."""
        empty = self.backend.memory.empty
        sent, received = (empty(1, self.backend.dtype) for _ in range(2))
        self.backend.memory.fill(sent, 0.0)
        self.driver.synchronize()
        self._post([[sent]] * self.size, [[received]] * self.size)
        self.driver.synchronize(self.stream)

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
        """See DeviceLink.start.

        Raises:
            TrainingError, PeerFailedError: another replica has failed.
        """
        self._post(outgoing, incoming)
        return _Posted(self, incoming)

    def _post(self, outgoing: Sequence[Message], incoming: Sequence[Message]) -> None:
        """Submit one group between two meetings."""
        stream = self.driver.native_stream(self.stream)
        self.meet()
        self._nccl.call("ncclGroupStart")
        for peer in range(self.size):
            if peer == self.rank:
                continue
            for name, arrays in (("ncclSend", outgoing[peer]), ("ncclRecv", incoming[peer])):
                for array in arrays:
                    place = array.address, array.nbytes, _BYTES, peer, self._comm, stream
                    self._nccl.call(name, *place)
        self._nccl.call("ncclGroupEnd")
        self.meet()

    def meet(self) -> None:
        """Wait on the host until all replicas are here; on a device a wait would have no limit.

        Raises:
            TrainingError, PeerFailedError: see Pending.finish. The link is aborted.
        """
        marker = [np.zeros(1, self.backend.dtype)]
        try:
            self.inner.exchange([marker] * self.size, [[1]] * self.size)
        except TrainingError:
            self.abort()
            raise

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


class _Posted:
    """See Pending."""

    def __init__(self, link: NcclLink, incoming: list[Message]) -> None:
        self._link, self._incoming = link, incoming

    def finish(self) -> list[Message]:
        """See Pending.finish. The compute stream waits for the copies, the host does not."""
        self._link.passed()
        return self._incoming
