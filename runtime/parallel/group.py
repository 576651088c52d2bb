"""Groups of replicas: sending a command to every replica and collecting the results."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, Protocol

from prototxt_gen.errors import DeviceError, TrainingError, VerydeepError
from runtime.parallel.collective import PATIENCE, ExchangeTable, PeerFailedError, ThreadCollective
from runtime.parallel.replica import Command, Replica

log = logging.getLogger("verydeep.parallel")

BuildReplica = Callable[[int, ThreadCollective], Replica]


class ReplicaGroup(Protocol):
    """All replicas of a run; the first one runs in the caller's thread."""

    size: int

    def run(self, command: Command, *args: Any, first: Sequence[Any] | None = None) -> list[Any]:
        """Run a command on every replica; returns the results in order of rank.

        `first` has the arguments of the first replica if they differ from the others'.

        Raises:
            VerydeepError: a replica failed. If gradients were computed, no weight was updated.
        """

    def close(self) -> None:
        """Close the replicas; the second call does nothing."""


class ThreadGroup:
    """Replicas in one process, each in a thread. See ReplicaGroup."""

    def __init__(self, size: int, build: BuildReplica, patience: float = PATIENCE) -> None:
        """Build replica r by build(r, collective), in the thread in which it will run.

        Raises:
            VerydeepError: a replica could not be built.
        """
        self.size = size
        self._process = os.getpid()
        self.table = ExchangeTable(size, patience)
        self._threads = [
            futures.ThreadPoolExecutor(1, thread_name_prefix=f"replica-{rank}")
            for rank in range(1, size)
        ]
        self._hung = False
        self._closed = False
        self.replicas: list[Replica] = []
        try:
            self.replicas.append(build(0, ThreadCollective(self.table, 0)))
            for rank, thread in enumerate(self._threads, start=1):
                built = thread.submit(build, rank, ThreadCollective(self.table, rank))
                self.replicas.append(built.result())
        except BaseException:
            self.close()
            raise

    def run(self, command: Command, *args: Any, first: Sequence[Any] | None = None) -> list[Any]:
        """See ReplicaGroup."""
        if self.size > 1 and os.getpid() != self._process:
            raise DeviceError(
                f"replicas: the {self.size} replicas are threads of the parent process, and this "
                "process was forked from it; expected the process that started them; build the "
                "solver again in this process"
            )
        others = [
            thread.submit(_execute, replica, command, args)
            for thread, replica in zip(self._threads, self.replicas[1:])
        ]
        errors: list[BaseException] = []
        results: list[Any] = []
        try:
            results.append(_execute(self.replicas[0], command, args if first is None else first))
        except VerydeepError as error:
            errors.append(error)
        for rank, future in enumerate(others, start=1):
            self._collect(future, rank, results, errors)
        if errors:
            if not self._hung:
                self.table.reset()
            raise first_cause(errors)
        return results

    def _collect(
        self,
        future: futures.Future[Any],
        rank: int,
        results: list[Any],
        errors: list[BaseException],
    ) -> None:
        try:
            # After an error, a replica that hangs is not waited for without a limit.
            results.append(future.result(self.table.patience if errors else None))
        except futures.TimeoutError:
            self._hung = True
            errors.append(PeerFailedError(f"replica {rank}: does not respond"))
        except VerydeepError as error:
            errors.append(error)
        except Exception as cause:  # noqa: BLE001  raised below, typed, with its cause
            failure = TrainingError(
                f"replica {rank}: {cause!r}; expected it to compute as the first one does; see the "
                "cause of this error; the last snapshot is intact"
            )
            failure.__cause__ = cause
            errors.append(failure)

    def close(self) -> None:
        """See ReplicaGroup. All replicas close at once, each in its thread: NCCL requires this."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        closing: list[futures.Future[None]] = []
        for thread, replica in zip(self._threads, self.replicas[1:]):
            if self._hung:
                replica.close()
            else:
                closing.append(thread.submit(replica.close))
        for replica in self.replicas[:1]:
            replica.close()
        for future in closing:
            future.result()
        for thread in self._threads:
            thread.shutdown(wait=not self._hung)


def _execute(replica: Replica, command: Command, args: Sequence[Any]) -> Any:
    try:
        return replica.execute(command, args)
    except PeerFailedError:
        raise
    except BaseException:
        replica.link.abort()
        raise


def first_cause(errors: Sequence[BaseException]) -> BaseException:
    """The first error that is not a consequence of another replica's error."""
    causes = [error for error in errors if not isinstance(error, PeerFailedError)]
    return causes[0] if causes else errors[0]
