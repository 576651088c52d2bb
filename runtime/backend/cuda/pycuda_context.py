"""A device's primary context, current in whichever thread calls.

The primary context is the one that CUDA's run-time API and NCCL use. CUDA and PyCUDA keep a stack
of contexts for each thread; ours has one entry at most, it is changed when a thread calls another
device, and it is taken down when the thread ends, as PyCUDA demands.
"""

from __future__ import annotations

import atexit
import threading
from typing import Any


class _Seat:
    """A context on top of the calling thread's stack, for as long as this object lives."""

    def __init__(self, cuda: Any, context: Any) -> None:
        context.push()
        self.context = context
        self._pop = cuda.Context.pop
        self._detached = False

    def detach(self) -> None:
        """Let go of the context altogether; PyCUDA takes it off its stack itself."""
        self._detached = True
        self.context.detach()

    def __del__(self) -> None:
        if not self._detached:
            self._pop()


# What CUDA itself keeps for each thread of the process; a thread's entry goes when the thread does.
_threads = threading.local()


def leave_thread() -> None:
    """Take down the calling thread's context, if it has one."""
    _threads.seat = None


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
        # No local name for the old seat: it must be gone before the new one is pushed.
        if getattr(_threads, "seat", None) is None or _threads.seat.context is not self._context:
            leave_thread()
            _threads.seat = _Seat(self._cuda, self._context)

    @property
    def raw(self) -> Any:
        """PyCUDA's own context."""
        return self._context

    def reach(self, device: Any, other: Any, context: PrimaryContext) -> bool:
        """Whether the device reads another's memory; from now on directly, where it does."""
        if other == device:
            return True
        if not device.can_access_peer(other):
            return False
        self.attach()
        if other not in self._reached:
            try:
                self._cuda.Context.enable_peer_access(context.raw)
            except self._cuda.LogicError as cause:
                # Another driver of this device, whose context is the same, has been here.
                if "already enabled" not in str(cause):
                    raise
            self._reached.append(other)
        return True

    def release(self) -> None:
        """Let go of it; what was made in it must be gone."""
        self.attach()
        _threads.seat.detach()
        _threads.seat = None
