"""Memory on the host, on a device, or on both, copied only when necessary."""

from __future__ import annotations

import enum
import itertools
import math
from typing import Any

import numpy as np

from runtime.backend.base import Array, Backend, HostArray
from runtime.backend.recording import Access

_VERSIONS = itertools.count(1)
"""Versions are unique over all storages, since a blob may change its storage."""


class Head(enum.Enum):
    """Which copy is current. Caffe: SyncedHead."""

    UNINITIALIZED = 0
    AT_HOST = 1
    AT_DEVICE = 2
    SYNCED = 3


class Storage:
    """A flat allocation that several blobs may share. New memory reads as zeros.

    `version` changes with every access that may write, so that data derived from the contents, such
    as transformed filters, is recomputed only when necessary. If a caller keeps a host array
    (`exposed`), writes cannot be detected, and `version` is None.
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
        """Storage over an existing device array, such as a slice of a larger buffer.

        Shapes: device (count,).
        """
        storage = cls(backend, count, dtype)
        storage._device = device
        storage.head = Head.AT_DEVICE
        if backend.shares_host_memory:
            storage._host, storage.head = device, Head.SYNCED
        return storage

    @property
    def version(self) -> int | None:
        """Changes whenever the contents may have changed; None if writes cannot be detected."""
        return None if self.exposed else self._version

    @property
    def reads_zero(self) -> bool:
        """Whether it was not accessed since it was created or cleared: zeros are not written."""
        return self.head is Head.UNINITIALIZED

    def clear(self) -> None:
        """Set the contents to zero; the zeros are written at the next access."""
        self._version = next(_VERSIONS)
        self.head = Head.UNINITIALIZED
        if self.exposed:
            # The kept array must show the zeros.
            self.host(write=False)

    def overwrite(self) -> Array:
        """The flat device array, with undefined contents; the caller writes all of it.

        Shapes: (count,).
        """
        if self.head is Head.UNINITIALIZED and self._device is not None:
            self.head = Head.AT_DEVICE
        if self.backend.shares_host_memory and self._host is not None:
            self.head = Head.SYNCED
        return self.device(write=True)

    def host(self, write: bool) -> HostArray:
        """The flat host array, updated if necessary. Shapes: (count,)."""
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

    def touch(self) -> None:
        """Note that the contents may have changed, without a change of where the newest are."""
        self._version = next(_VERSIONS)

    def replayed(self, written: bool) -> None:
        """Record that a replay has read or written the device array."""
        if written:
            self._version = next(_VERSIONS)
        if written or self.head is Head.UNINITIALIZED:
            self.head = Head.AT_DEVICE

    def device(self, write: bool) -> Array:
        """The flat device array, updated if necessary. Shapes: (count,)."""
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
    """A shaped view of a Storage, which several views may share."""

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
        """See Storage.version."""
        self._notify(Access.VERSION)
        return self._storage.version

    def reshape(self, shape: tuple[int, ...]) -> None:
        """Set the shape; memory is reallocated only if it is too small."""
        self.shape = shape
        self.count = math.prod(shape)
        if self.count > self._storage.count:
            self._storage = Storage(self.backend, self.count, self.dtype)

    def share(self, other: SyncedMemory) -> None:
        """Use the storage of another memory, with this shape."""
        self._storage = other._storage
        self._notify(Access.BINDING)
        other._notify(Access.BINDING)

    def bind(self, storage: Storage) -> None:
        """Use a storage, with this shape."""
        self._storage = storage

    def host(self) -> HostArray:
        """Host array to read, valid until the next access. Shapes: `shape`."""
        self._notify(Access.HOST_READ)
        return self._storage.host(write=False)[: self.count].reshape(self.shape)

    def mutable_host(self) -> HostArray:
        """Host array to read and write, valid until the next access. Shapes: `shape`."""
        self._notify(Access.HOST_WRITE)
        return self._storage.host(write=True)[: self.count].reshape(self.shape)

    def exposed_host(self) -> HostArray:
        """Host array that the caller may keep and write at any time, as pycaffe's `.data`.

        Shapes: `shape`.
        """
        self._storage.exposed = True
        return self.mutable_host()

    def dev(self) -> Array:
        """Device array to read. Shapes: `shape`."""
        self._notify(Access.DEVICE_READ)
        return self.backend.memory.view(self._storage.device(write=False), 0, self.shape)

    @property
    def reads_zero(self) -> bool:
        """See Storage.reads_zero."""
        self._notify(Access.BINDING)
        return self._storage.reads_zero

    def clear(self) -> None:
        """See Storage.clear."""
        self._notify(Access.HOST_WRITE)
        self._storage.clear()

    def overwritten_dev(self) -> Array:
        """Device array with undefined contents; the caller writes all of it. Shapes: `shape`."""
        self._notify(Access.DEVICE_WRITE)
        return self.backend.memory.view(self._storage.overwrite(), 0, self.shape)

    def mutable_dev(self) -> Array:
        """Device array to read and write. Shapes: `shape`."""
        self._notify(Access.DEVICE_WRITE)
        return self.backend.memory.view(self._storage.device(write=True), 0, self.shape)

    def _notify(self, access: Access) -> None:
        if self._watch is not None and self._watch.on_access is not None:
            self._watch.on_access(self, access)
