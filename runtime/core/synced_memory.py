"""Memory that lives on the host, on a device, or on both, and is copied only when it must be."""

from __future__ import annotations

import enum
import itertools
import math
from typing import Any

import numpy as np

from runtime.backend.base import Array, Backend, HostArray
from runtime.backend.recording import Access

_VERSIONS = itertools.count(1)
"""One series for all storages: a blob that changes its storage must not meet a version again."""


class Head(enum.Enum):
    """Where the newest bytes are. Caffe: SyncedHead."""

    UNINITIALIZED = 0
    AT_HOST = 1
    AT_DEVICE = 2
    SYNCED = 3


class Storage:
    """A flat allocation; several blobs may look at it. Fresh memory reads as zeros.

    `version` grows with every access that may write, so whoever derives something from the
    contents (transformed filters) knows when to derive it again. Once a host array has been handed
    out to keep (`exposed`), writes can no longer be seen, and `version` is None.
    """

    def __init__(self, backend: Backend, count: int, dtype: np.dtype[Any]) -> None:
        self.backend = backend
        self.count = count
        self.dtype = dtype
        self.head = Head.UNINITIALIZED
        self.exposed = False
        self._version = next(_VERSIONS)
        self._host: HostArray | None = None
        self._device: Array | None = None

    @classmethod
    def around(cls, backend: Backend, device: Array, count: int, dtype: np.dtype[Any]) -> Storage:
        """Storage over a device array that somebody else owns, such as a slice of a flat buffer."""
        storage = cls(backend, count, dtype)
        storage._device = device
        storage.head = Head.AT_DEVICE
        if backend.shares_host_memory:
            storage._host, storage.head = device, Head.SYNCED
        return storage

    @property
    def version(self) -> int | None:
        return None if self.exposed else self._version

    @property
    def reads_zero(self) -> bool:
        """Nobody has looked since it was made or cleared; it is zeroed only when somebody does."""
        return self.head is Head.UNINITIALIZED

    def clear(self) -> None:
        """Read as zeros from now on; nothing is written before somebody looks."""
        self._version = next(_VERSIONS)
        self.head = Head.UNINITIALIZED
        if self.exposed:
            # Whoever keeps the array does look.
            self.host(write=False)

    def overwrite(self) -> Array:
        """The flat device array, for one who writes all of it: it may hold anything."""
        if self.head is Head.UNINITIALIZED and self._device is not None:
            self.head = Head.AT_DEVICE
        if self.backend.shares_host_memory and self._host is not None:
            self.head = Head.SYNCED
        return self.device(write=True)

    def host(self, write: bool) -> HostArray:
        """The flat host array, brought up to date."""
        if self._host is None:
            self._host = np.zeros(self.count, self.dtype)
        elif self.head is Head.UNINITIALIZED:
            self._fill_host_with_zeros()
        if self.backend.shares_host_memory:
            self.head = Head.SYNCED
        elif self.head is Head.AT_DEVICE:
            self.backend.memory.download(self._device, self._host)
            self.head = Head.SYNCED
        elif self.head is Head.UNINITIALIZED:
            self.head = Head.AT_HOST
        if write:
            self._version = next(_VERSIONS)
            if not self.backend.shares_host_memory:
                self.head = Head.AT_HOST
        return self._host

    def _fill_host_with_zeros(self) -> None:
        if self.backend.shares_host_memory:
            self.backend.memory.fill(self._host, 0.0)
        elif self._host is not None:
            self._host.fill(0)

    def replayed(self, written: bool) -> None:
        """Note that a replay has read the device array, or written it."""
        if written:
            self._version = next(_VERSIONS)
        if written or self.head is Head.UNINITIALIZED:
            self.head = Head.AT_DEVICE

    def device(self, write: bool) -> Array:
        """The flat device array, brought up to date."""
        if self.backend.shares_host_memory:
            return self.host(write)
        if self._device is None:
            self._device = self.backend.memory.empty(self.count, self.dtype)
        if self.head is Head.AT_HOST:
            assert self._host is not None
            self.backend.memory.upload(self._host, self._device)
            self.head = Head.SYNCED
        elif self.head is Head.UNINITIALIZED:
            self.backend.memory.fill(self._device, 0.0)
            self.head = Head.AT_DEVICE
        if write:
            self._version = next(_VERSIONS)
            self.head = Head.AT_DEVICE
        return self._device


class SyncedMemory:
    """One shaped look at a Storage. `share` makes two of them look at the same bytes."""

    def __init__(self, backend: Backend, dtype: np.dtype[Any] | None = None) -> None:
        self.backend = backend
        self.dtype = np.dtype(dtype if dtype is not None else backend.dtype)
        self.shape: tuple[int, ...] = (0,)
        self.count = 0
        self._watch = None if backend.recorder is None else backend.recorder.watch
        self._storage = Storage(backend, 0, self.dtype)

    @property
    def storage(self) -> Storage:
        return self._storage

    @property
    def version(self) -> int | None:
        """Changes whenever the contents may have; None when that cannot be known."""
        self._tell(Access.VERSION)
        return self._storage.version

    def reshape(self, shape: tuple[int, ...]) -> None:
        """Take a new shape; the allocation is kept while it is large enough."""
        self.shape = shape
        self.count = math.prod(shape)
        if self.count > self._storage.count:
            self._storage = Storage(self.backend, self.count, self.dtype)

    def share(self, other: SyncedMemory) -> None:
        """Look at the other's storage from now on, in the own shape."""
        self._storage = other._storage
        self._tell(Access.BINDING)
        other._tell(Access.BINDING)

    def bind(self, storage: Storage) -> None:
        """Look at this storage from now on, in the own shape."""
        self._storage = storage

    def host(self) -> HostArray:
        """Host array to read, in the shape. Do not keep it: the next pass may make it stale."""
        self._tell(Access.HOST_READ)
        return self._storage.host(write=False)[: self.count].reshape(self.shape)

    def mutable_host(self) -> HostArray:
        """Host array to read and write, in the shape."""
        self._tell(Access.HOST_WRITE)
        return self._storage.host(write=True)[: self.count].reshape(self.shape)

    def exposed_host(self) -> HostArray:
        """Host array that the caller keeps and may write at any time (pycaffe's `.data`)."""
        self._storage.exposed = True
        return self.mutable_host()

    def dev(self) -> Array:
        """Device array to read, in the shape."""
        self._tell(Access.DEVICE_READ)
        return self.backend.memory.view(self._storage.device(write=False), 0, self.shape)

    @property
    def reads_zero(self) -> bool:
        """See Storage.reads_zero."""
        self._tell(Access.BINDING)
        return self._storage.reads_zero

    def clear(self) -> None:
        """See Storage.clear."""
        self._tell(Access.HOST_WRITE)
        self._storage.clear()

    def overwritten_dev(self) -> Array:
        """Device array to write, in the shape; what it holds before means nothing.

        The whole storage must be written.
        """
        self._tell(Access.DEVICE_WRITE)
        return self.backend.memory.view(self._storage.overwrite(), 0, self.shape)

    def mutable_dev(self) -> Array:
        """Device array to read and write, in the shape."""
        self._tell(Access.DEVICE_WRITE)
        return self.backend.memory.view(self._storage.device(write=True), 0, self.shape)

    def _tell(self, access: Access) -> None:
        if self._watch is not None and self._watch.told is not None:
            self._watch.told(self, access)
