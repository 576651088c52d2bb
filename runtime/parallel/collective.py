"""Collective: how replicas give each other arrays; and the one between threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from prototxt_gen.errors import TrainingError
from runtime.backend.base import Array

Parcel = list[Array]
"""What one replica sends another: arrays, in an order that both know."""

PATIENCE = 1800.0
"""Seconds to wait for a replica that is late, before the run is given up."""


class PeerFailedError(TrainingError):
    """Another replica failed or was told to stop; what it said is the news, not this."""


class Pending(Protocol):
    """An exchange under way."""

    def finish(self) -> list[Parcel]:
        """Wait for everybody's arrays; element q came from replica q.

        They may be the senders' own memory, whose receiver may write on it. They stay until
        `release`.

        Raises:
            TrainingError: a replica did not come; names it.
            PeerFailedError: a replica failed.
        """


class Collective(Protocol):
    """One replica's connection to all.

    What thread and MPI collectives move is host arrays; the links of links.py have the same
    methods and move arrays of a backend.
    """

    rank: int
    size: int
    in_process: bool
    """Arrays are handed over as they are, so host memory can be looked at by all."""

    def post(self, outgoing: Sequence[Parcel], sizes: Sequence[Sequence[int]]) -> Pending:
        """Begin to send outgoing[r] to replica r; returns at once.

        `sizes[q]` are the counts of the arrays that q sends here. All replicas post in the same
        order. What is sent must stay as it is until `release`.
        """

    def exchange(self, outgoing: Sequence[Parcel], sizes: Sequence[Sequence[int]]) -> list[Parcel]:
        """Post and finish."""

    def release(self) -> None:
        """Say that all arrays that came have been read, and wait until that is so everywhere."""

    def abort(self) -> None:
        """Let those who wait for this replica fail instead."""

    def close(self) -> None:
        """Give back what the connection holds; nothing is sent any more."""


class Meeting:
    """What threads of one process share: a table of what each has posted, turn by turn."""

    def __init__(self, size: int, patience: float = PATIENCE) -> None:
        self.size = size
        self.patience = patience
        self._news = threading.Condition()
        self._aborted = False
        self._turns = [0] * size
        self._table: dict[int, dict[int, Any]] = {}

    def post(self, rank: int, what: Any) -> int:
        """Lay something on the table; returns the number of the turn."""
        with self._news:
            turn = self._turns[rank]
            self._turns[rank] += 1
            self._table.setdefault(turn, {})[rank] = what
            self._news.notify_all()
        return turn

    def collect(self, rank: int, turn: int) -> list[Any]:
        """What all have laid down in a turn, once they have.

        Raises:
            TrainingError, PeerFailedError: see Pending.finish.
        """
        with self._news:
            found = self._table.setdefault(turn, {})
            self._news.wait_for(
                lambda: self._aborted or len(found) == self.size, timeout=self.patience
            )
            if len(found) == self.size:
                return [found[peer] for peer in range(self.size)]
            if self._aborted:
                raise PeerFailedError(f"replica {rank}: another replica failed; see its message")
            raise self._late(rank, sorted(set(range(self.size)) - set(found)))

    def forget(self, turn: int) -> None:
        """Clear the table of what came before a turn."""
        with self._news:
            for old in [known for known in self._table if known < turn]:
                del self._table[old]

    def _late(self, rank: int, late: Sequence[int]) -> TrainingError:
        return TrainingError(
            f"replica {rank}: waited {self.patience:g} s for replica(s) "
            f"{', '.join(map(str, late))}; expected all {self.size} within that time; look at the "
            "data they read and the devices they run on; the last snapshot is intact"
        )

    def abort(self) -> None:
        """Let those who wait fail."""
        with self._news:
            self._aborted = True
            self._news.notify_all()

    def reset(self) -> None:
        """Begin again after a failure, when nobody waits any more."""
        with self._news:
            self._aborted = False
            self._turns = [0] * self.size
            self._table.clear()


class _Posted:
    """See Pending."""

    def __init__(self, meeting: Meeting, rank: int, turn: int) -> None:
        self._meeting, self._rank, self._turn = meeting, rank, turn

    def finish(self) -> list[Parcel]:
        """See Pending.finish."""
        parcels = self._meeting.collect(self._rank, self._turn)
        return [outgoing[self._rank] for outgoing in parcels]


class ThreadCollective:
    """Replicas that are threads of one process."""

    in_process = True

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting = meeting
        self.rank = rank
        self.size = meeting.size

    def post(self, outgoing: Sequence[Parcel], sizes: Sequence[Sequence[int]]) -> Pending:
        """See Collective."""
        return _Posted(self.meeting, self.rank, self.meeting.post(self.rank, outgoing))

    def exchange(self, outgoing: Sequence[Parcel], sizes: Sequence[Sequence[int]]) -> list[Parcel]:
        """See Collective."""
        return self.post(outgoing, sizes).finish()

    def release(self) -> None:
        """See Collective."""
        turn = self.meeting.post(self.rank, None)
        self.meeting.collect(self.rank, turn)
        # Everybody is here, so nobody will ask for an earlier turn.
        self.meeting.forget(turn)

    def abort(self) -> None:
        """See Collective."""
        self.meeting.abort()

    def close(self) -> None:
        """See Collective."""
