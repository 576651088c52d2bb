"""Crews: who tells all replicas what to do, and hears how it went."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, Protocol

from prototxt_gen.errors import DeviceError, TrainingError, VerydeepError
from runtime.parallel.collective import PATIENCE, Meeting, PeerFailedError, ThreadCollective
from runtime.parallel.replica import Replica

log = logging.getLogger("verydeep.parallel")

Build = Callable[[int, ThreadCollective], Replica]


class Crew(Protocol):
    """All replicas of a run; the first one belongs to the caller's thread."""

    size: int

    def run(self, method: str, *args: Any) -> list[Any]:
        """Have every replica do a method of Replica; what they return, in their order.

        Raises:
            VerydeepError: a replica failed; nothing was updated where gradients were asked for.
        """

    def scatter(self, method: str, argument: Any) -> None:
        """Have every replica do a method; the first is given an argument, the others none."""

    def close(self) -> None:
        """End the replicas."""


class ThreadCrew:
    """Replicas of one process, a thread each."""

    def __init__(self, size: int, build: Build, patience: float = PATIENCE) -> None:
        """Build replica r by build(r, collective), in the thread that it will live in.

        Raises:
            VerydeepError: what a replica's building raised.
        """
        self.size = size
        self._process = os.getpid()
        self.meeting = Meeting(size, patience)
        self._threads = [
            futures.ThreadPoolExecutor(1, thread_name_prefix=f"replica-{rank}")
            for rank in range(1, size)
        ]
        self._lost = False
        self.replicas: list[Replica] = []
        try:
            self.replicas.append(build(0, ThreadCollective(self.meeting, 0)))
            for rank, thread in enumerate(self._threads, start=1):
                made = thread.submit(build, rank, ThreadCollective(self.meeting, rank))
                self.replicas.append(made.result())
        except BaseException:
            self.close()
            raise

    def run(self, method: str, *args: Any) -> list[Any]:
        """See Crew."""
        return self._run(method, args, args)

    def scatter(self, method: str, argument: Any) -> None:
        """See Crew."""
        self._run(method, (argument,), ())

    def _run(self, method: str, first: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        if self.size > 1 and os.getpid() != self._process:
            raise DeviceError(
                f"replicas: {self.size} replicas are threads of the process that this one was "
                "forked from; expected the process that started them; build the solver again here"
            )
        others = [
            thread.submit(self._call, replica, method, rest)
            for thread, replica in zip(self._threads, self.replicas[1:])
        ]
        errors: list[BaseException] = []
        results: list[Any] = []
        try:
            results.append(self._call(self.replicas[0], method, first))
        except VerydeepError as error:
            errors.append(error)
        for rank, future in enumerate(others, start=1):
            self._collect(future, rank, results, errors)
        if errors:
            if not self._lost:
                self.meeting.reset()
            raise first_cause(errors)
        return results

    def _call(self, replica: Replica, method: str, args: Sequence[Any]) -> Any:
        try:
            return getattr(replica, method)(*args)
        except PeerFailedError:
            raise
        except BaseException:
            replica.link.abort()
            raise

    def _collect(
        self,
        future: futures.Future[Any],
        rank: int,
        results: list[Any],
        errors: list[BaseException],
    ) -> None:
        try:
            # One that is hung is not waited for: the others have waited long enough.
            results.append(future.result(self.meeting.patience if errors else None))
        except futures.TimeoutError:
            self._lost = True
            errors.append(PeerFailedError(f"replica {rank}: does not answer"))
        except VerydeepError as error:
            errors.append(error)
        except Exception as cause:  # noqa: BLE001  raised below, typed, with its cause
            failure = TrainingError(
                f"replica {rank}: {cause!r}; expected it to compute as the first one does; the "
                "cause shown with this error says where it failed; the last snapshot is intact"
            )
            failure.__cause__ = cause
            errors.append(failure)

    def close(self) -> None:
        """See Crew. Each ends in its own thread, all at once: some connections need that."""
        if os.getpid() != self._process:
            return
        ending: list[futures.Future[None]] = []
        for thread, replica in zip(self._threads, self.replicas[1:]):
            if self._lost:
                replica.close()
            else:
                ending.append(thread.submit(replica.close))
        for replica in self.replicas[:1]:
            replica.close()
        for future in ending:
            future.result()
        for thread in self._threads:
            thread.shutdown(wait=not self._lost)


def first_cause(errors: Sequence[BaseException]) -> BaseException:
    """The error that the others follow from."""
    causes = [error for error in errors if not isinstance(error, PeerFailedError)]
    return causes[0] if causes else errors[0]
