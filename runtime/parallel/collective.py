"""Collective: how replicas give each other arrays; and the one between threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from prototxt_gen.errors import TrainingError
from runtime.backend.base import HostArray

Parcel = list[HostArray]
"""What one replica sends another: arrays, in an order that both know."""

PATIENCE = 1800.0
"""Seconds to wait for a replica that is late, before the run is given up."""


class PeerFailedError(TrainingError):
    """Another replica failed or was told to stop; what it said is the news, not this."""


class Collective(Protocol):
    """One replica's connection to all."""

    rank: int
    size: int
    in_process: bool
    """Arrays are handed over as they are, so host memory can be looked at by all."""

    def exchange(self, outgoing: Sequence[Parcel], sizes: Sequence[Sequence[int]]) -> list[Parcel]:
        """Send outgoing[r] to replica r; element q of the result came from replica q.

        `sizes[q]` are the counts of the arrays that q sends here. All replicas call it together.
        What is returned may be the senders' own memory: read it, and then call `release`.

        Raises:
            TrainingError: a replica did not come; names it.
            PeerFailedError: a replica failed.
        """

    def release(self) -> None:
        """Say that the arrays of the last exchange have been read."""

    def abort(self) -> None:
        """Let those who wait for this replica fail instead."""


class Meeting:
    """What threads of one process share: a table of parcels, and the doors before and after it."""

    def __init__(self, size: int, patience: float = PATIENCE) -> None:
        self.size = size
        self.patience = patience
        self.table: list[Sequence[Parcel]] = [[] for _ in range(size)]
        self._barrier = threading.Barrier(size)
        self._present: set[int] = set()
        self._lock = threading.Lock()
        self._aborted = False

    def wait(self, rank: int) -> None:
        """Wait for everybody.

        Raises:
            TrainingError, PeerFailedError: see Collective.exchange.
        """
        with self._lock:
            self._present.add(rank)
        try:
            self._barrier.wait(self.patience)
        except threading.BrokenBarrierError:
            raise self._broken(rank) from None
        with self._lock:
            self._present.discard(rank)

    def _broken(self, rank: int) -> TrainingError:
        with self._lock:
            late = sorted(set(range(self.size)) - self._present)
            aborted = self._aborted
        if aborted or not late:
            return PeerFailedError(f"replica {rank}: another replica failed; see its message")
        return TrainingError(
            f"replica {rank}: waited {self.patience:g} s for replica(s) "
            f"{', '.join(map(str, late))}; expected all {self.size} within that time; look at the "
            "data they read and the devices they run on; the last snapshot is intact"
        )

    def abort(self) -> None:
        """Let those who wait fail."""
        self._aborted = True
        self._barrier.abort()

    def reset(self) -> None:
        """Begin again after a failure, when nobody waits any more."""
        self._aborted = False
        self._present.clear()
        self._barrier.reset()


class ThreadCollective:
    """Replicas that are threads of one process."""

    in_process = True

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting = meeting
        self.rank = rank
        self.size = meeting.size

    def exchange(self, outgoing: Sequence[Parcel], sizes: Sequence[Sequence[int]]) -> list[Parcel]:
        """See Collective."""
        if self.size == 1:
            return [outgoing[0]]
        self.meeting.table[self.rank] = outgoing
        self.meeting.wait(self.rank)
        return [parcels[self.rank] for parcels in self.meeting.table]

    def release(self) -> None:
        """See Collective."""
        if self.size > 1:
            self.meeting.wait(self.rank)

    def abort(self) -> None:
        """See Collective."""
        self.meeting.abort()
