"""Collective: the exchange of arrays between replicas, and its form for threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from prototxt_gen.errors import TrainingError
from runtime.backend.base import Array

Message = list[Array]
"""The arrays that one replica sends to another, in an order that both use."""

PATIENCE = 1800.0
"""Seconds to wait for a late replica before the run ends with an error."""


class PeerFailedError(TrainingError):
    """Another replica failed or was stopped; its own error has the cause."""


class Pending(Protocol):
    """An exchange that has been posted."""

    def finish(self) -> list[Message]:
        """Wait for the messages of all replicas; element r came from replica r.

        The arrays may be the sender's own memory, and the receiver may overwrite them. They are
        valid until `release`.

        Raises:
            TrainingError: a replica is late.
            PeerFailedError: a replica failed.
        """


class Collective:
    """The connection of one replica to all replicas; a base class.

    Thread and MPI collectives move host arrays, the links of links.py arrays of a backend.
    """

    rank: int
    size: int
    in_process = False
    """Whether arrays are passed by reference, so that replicas can share host memory."""

    def post(self, outgoing: Sequence[Message], sizes: Sequence[Sequence[int]]) -> Pending:
        """Start to send outgoing[r] to replica r; returns at once.

        `sizes[r]` are the counts of the arrays that replica r sends to this one. All replicas post
        in the same order. The arrays must not change until `release`.
        """
        raise NotImplementedError

    def exchange(
        self, outgoing: Sequence[Message], sizes: Sequence[Sequence[int]]
    ) -> list[Message]:
        """Post, then finish.

        Raises:
            TrainingError, PeerFailedError: see Pending.finish.
        """
        return self.post(outgoing, sizes).finish()

    def release(self) -> None:
        """Wait until all replicas have read the arrays they received."""
        raise NotImplementedError

    def abort(self) -> None:
        """Make the replicas that wait for this one fail."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the resources of the connection."""


class ExchangeTable:
    """The memory that the threads of a process exchange arrays through.

    Every post gets the next turn of its replica; turn t is complete once all replicas have posted
    it.
    """

    def __init__(self, size: int, patience: float = PATIENCE) -> None:
        self.size = size
        self.patience = patience
        self._changed = threading.Condition()
        self._aborted = False
        self._turns = [0] * size
        self._posts: dict[int, dict[int, Any]] = {}

    def post(self, rank: int, content: Any) -> int:
        """Store the content of a replica's next turn; returns the number of the turn."""
        with self._changed:
            turn = self._turns[rank]
            self._turns[rank] += 1
            self._posts.setdefault(turn, {})[rank] = content
            self._changed.notify_all()
        return turn

    def collect(self, rank: int, turn: int) -> list[Any]:
        """Wait until a turn is complete; returns the contents in order of rank.

        Raises:
            TrainingError, PeerFailedError: see Pending.finish.
        """
        with self._changed:
            posts = self._posts.setdefault(turn, {})
            self._changed.wait_for(
                lambda: self._aborted or len(posts) == self.size, timeout=self.patience
            )
            if len(posts) == self.size:
                return [posts[peer] for peer in range(self.size)]
            if self._aborted:
                raise PeerFailedError(f"replica {rank}: another replica failed; see its message")
            late = sorted(set(range(self.size)) - set(posts))
            raise TrainingError(
                f"replica {rank}: waited {self.patience:g} s for replica(s) "
                f"{', '.join(map(str, late))}; expected all {self.size} within that time; check "
                "the data they read and the devices they run on; the last snapshot is intact"
            )

    def forget(self, turn: int) -> None:
        """Remove all turns before this one."""
        with self._changed:
            for earlier in [number for number in self._posts if number < turn]:
                del self._posts[earlier]

    def abort(self) -> None:
        """Make the waiting replicas fail."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def reset(self) -> None:
        """Start again after a failure; no replica may wait."""
        with self._changed:
            self._aborted = False
            self._turns = [0] * self.size
            self._posts.clear()


class _Posted:
    """See Pending."""

    def __init__(self, table: ExchangeTable, rank: int, turn: int) -> None:
        self._table, self._rank, self._turn = table, rank, turn

    def finish(self) -> list[Message]:
        """See Pending.finish."""
        contents = self._table.collect(self._rank, self._turn)
        return [outgoing[self._rank] for outgoing in contents]


class ThreadCollective(Collective):
    """The connection of replicas that are threads of one process."""

    in_process = True

    def __init__(self, table: ExchangeTable, rank: int) -> None:
        self.table = table
        self.rank = rank
        self.size = table.size

    def post(self, outgoing: Sequence[Message], sizes: Sequence[Sequence[int]]) -> Pending:
        """See Collective."""
        return _Posted(self.table, self.rank, self.table.post(self.rank, outgoing))

    def release(self) -> None:
        """See Collective."""
        turn = self.table.post(self.rank, None)
        self.table.collect(self.rank, turn)
        # All replicas have reached this turn, so earlier ones are not collected again.
        self.table.forget(turn)

    def abort(self) -> None:
        """See Collective."""
        self.table.abort()
