"""MPI: replicas that are processes, on one machine or several (extra: mpi4py)."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import DeviceError, TrainingError
from runtime.backend.base import HostArray
from runtime.parallel.collective import PATIENCE, Collective, Message, PeerFailedError, Pending

CONTROL, RESULT, ABORT, _DATA = 1, 2, 3, 16
_TAGS = 30000
"""MPI guarantees tags up to 32767."""
_EXCHANGES = 64
"""Tags of one command; more exchanges reuse them, in the same order on all ranks."""
_POLL_SECONDS = 0.0005
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""The variables that Open MPI's and MPICH's mpirun set."""


class Order(enum.Enum):
    """The kinds of messages from rank 0 to the other ranks."""

    BUILD = enum.auto()
    RUN = enum.auto()
    STOP = enum.auto()


@dataclass
class World:
    """All processes of an mpirun, and the ranks of this one."""

    comm: Any
    rank: int
    size: int
    local_rank: int
    """The rank among the processes on this machine."""
    local_size: int
    patience: float = PATIENCE
    stopped: bool = False
    lost: bool = False
    """Whether a rank does not respond, so that waiting for its end would not return."""

    def stop(self) -> None:
        """Stop the other ranks; the second call does nothing."""
        if self.rank == 0 and not self.stopped:
            self.stopped = True
            for peer in range(1, self.size):
                self.comm.send((Order.STOP,), dest=peer, tag=CONTROL)


def find_world() -> World | None:
    """The processes of the mpirun that started this one; None without mpirun or with one process.

    Raises:
        DeviceError: started by mpirun without mpi4py.
    """
    size = next((os.environ[name] for name in _SIZES if name in os.environ), "1")
    if size == "1":
        return None
    try:
        from mpi4py import MPI
    except ImportError as cause:
        raise DeviceError(
            f"started by mpirun as {size} processes, and mpi4py cannot be imported: {cause}; "
            "expected it for sending gradients; install the extra: pip install 'verydeep[mpi]'"
        ) from cause
    comm = MPI.COMM_WORLD
    local = comm.Split_type(MPI.COMM_TYPE_SHARED)
    return World(comm, comm.rank, comm.size, local.rank, local.size)


class _Posted:
    """See Pending."""

    def __init__(
        self, collective: MpiCollective, incoming: list[Message], requests: list[tuple[int, Any]]
    ) -> None:
        self.incoming, self.requests = incoming, requests
        self._collective = collective

    def advance(self) -> bool:
        """Test the requests; returns whether some are unfinished."""
        self.requests = [(peer, request) for peer, request in self.requests if not request.Test()]
        return bool(self.requests)

    def finish(self) -> list[Message]:
        """See Pending.finish."""
        self._collective.wait(self)
        return self.incoming


class MpiCollective(Collective):
    """The connection of replicas that are processes; all machines need the same byte order."""

    def __init__(self, world: World, dtype: npt.DTypeLike = np.float32) -> None:
        self.world = world
        self.comm = world.comm
        self.rank, self.size = world.rank, world.size
        self.dtype = np.dtype(dtype)
        self._command = 0
        self._exchanges = 0
        self._kept: list[Any] = []
        self._pending: list[_Posted] = []
        self._spare: dict[int, list[HostArray]] = {}

    def begin(self, command: int) -> None:
        """Start a command and discard what failed commands have left."""
        self._command, self._exchanges = command, 0
        self._kept.clear()
        self._pending.clear()

    def post(self, outgoing: Sequence[Message], sizes: Sequence[Sequence[int]]) -> Pending:
        """See Collective."""
        # MPI sends large messages only during calls.
        for earlier in self._pending:
            earlier.advance()
        tag = _DATA + (self._command * _EXCHANGES + self._exchanges % _EXCHANGES) % _TAGS
        self._exchanges += 1
        incoming: list[Message] = []
        requests: list[tuple[int, Any]] = []
        for peer in range(self.size):
            if peer == self.rank:
                incoming.append(outgoing[peer])
                continue
            arrays = [self._empty(count) for count in sizes[peer]]
            incoming.append(arrays)
            requests += [(peer, self.comm.Irecv(a, peer, tag)) for a in arrays if a.size]
        for peer in range(self.size):
            if peer != self.rank:
                arrays = [np.ascontiguousarray(array) for array in outgoing[peer]]
                self._kept.append(arrays)
                requests += [(peer, self.comm.Isend(a, peer, tag)) for a in arrays if a.size]
        self._pending.append(_Posted(self, incoming, requests))
        return self._pending[-1]

    def _empty(self, count: int) -> HostArray:
        spare = self._spare.get(count)
        return spare.pop() if spare else np.empty(count, self.dtype)

    def release(self) -> None:
        """See Collective. Received arrays are this process's own, so no rank is waited for."""
        for posted in self._pending:
            for peer, arrays in enumerate(posted.incoming):
                if peer != self.rank:
                    for array in arrays:
                        self._spare.setdefault(array.size, []).append(array)
        self._pending.clear()

    def wait(self, posted: _Posted) -> None:
        """Wait for an exchange.

        Raises:
            TrainingError: a rank is late.
            PeerFailedError: a rank failed.
        """
        deadline = time.monotonic() + self.world.patience
        while posted.advance():
            failed = self._aborted()
            late = time.monotonic() > deadline
            if failed is not None or late:
                for _, request in posted.requests:
                    request.Cancel()
            if failed is not None:
                raise PeerFailedError(f"rank {self.rank}: rank {failed} failed; see its message")
            if late:
                raise late_ranks(self.world, {peer for peer, _ in posted.requests})
            time.sleep(_POLL_SECONDS)

    def _aborted(self) -> int | None:
        """A rank that has aborted the current command; None if there is none."""
        while self.comm.Iprobe(tag=ABORT):
            rank, command = self.comm.recv(tag=ABORT)
            if command == self._command:
                return int(rank)
        return None

    def abort(self) -> None:
        """See Collective."""
        for peer in range(self.size):
            if peer != self.rank:
                request = self.comm.isend((self.rank, self._command), dest=peer, tag=ABORT)
                self._kept.append(request)


def late_ranks(world: World, ranks: set[int]) -> TrainingError:
    """The error for ranks that do not respond."""
    world.lost = True
    return TrainingError(
        f"rank {world.rank}: waited {world.patience:g} s for rank(s) "
        f"{', '.join(map(str, sorted(ranks)))}; expected all {world.size} within that time; check "
        "the machines they run on, the network between them and the data they read; the last "
        "snapshot is intact"
    )
