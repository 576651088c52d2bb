"""Memory shared by the activations of several nets; see runtime/net/activation_memory.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.backend.base import Array, Backend


@dataclass
class Sharing:
    """An array for nets that never run at the same time."""

    keep: frozenset[str] = frozenset()
    """Names of blobs that are read after a pass; these do not share memory."""
    _array: Array = field(default=None, repr=False)
    _count: int = 0

    def array(self, backend: Backend, count: int) -> Array:
        """A flat array, reallocated if it is too small.

        Shapes: (n,) with n at least `count`.

        Raises:
            DeviceError: the allocation fails.
        """
        if count > self._count:
            self._array = None
            self._array = backend.memory.empty(count, backend.dtype)
            self._count = count
        return self._array
