"""Memory that nets lend each other for their activations. See activation_memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.backend.base import Array, Backend


@dataclass
class Sharing:
    """The array that nets share, which never run at the same time, and what they keep beside it.

    `keep` names blobs whose data is read after the pass.
    """

    keep: frozenset[str] = frozenset()
    _array: Array = field(default=None, repr=False)
    _count: int = 0

    def array(self, backend: Backend, count: int) -> Array:
        """An array of at least `count` elements; it is replaced when a net needs a larger one."""
        if count > self._count:
            self._array = None
            self._array = backend.memory.empty(count, backend.dtype)
            self._count = count
        return self._array
