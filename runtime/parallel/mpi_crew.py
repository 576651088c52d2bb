"""The crew of an mpirun: rank 0 has the solver, the other ranks do what it says."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from prototxt_gen import errors, proto
from prototxt_gen.errors import TrainingError, VerydeepError
from runtime.backend.base import Backend
from runtime.parallel.collective import PeerFailedError
from runtime.parallel.crew import first_cause
from runtime.parallel.mpi import CONTROL, RESULT, MpiCollective, World, late_ranks
from runtime.parallel.replica import Replica
from runtime.parallel.shard_plan import ShardPlan
from runtime.parallel.start import attach, first_replica, further_replica
from runtime.solvers.solver import Solver

_NAP = 0.0005


class MpiCrew:
    """See Crew. Made by rank 0, once the other ranks have built their replicas."""

    def __init__(self, world: World, solver: Solver, plan: ShardPlan) -> None:
        """Send the other ranks what to build, and wait for them.

        Raises:
            VerydeepError: what a rank's building raised.
        """
        self.world, self.size = world, world.size
        self.collective = MpiCollective(world, solver.net.backend.dtype)
        self._command = 0
        options = dataclasses.replace(solver.options, rng=None)
        setup = (solver.param.SerializeToString(), options, solver.seed, plan, world.patience)
        for peer in range(1, self.size):
            world.comm.send(("build", setup), dest=peer, tag=CONTROL)
        self.replica = first_replica(solver, plan, self.collective)
        failures: list[BaseException] = []
        self._collect([], failures)
        if failures:
            raise first_cause(failures)

    def run(self, method: str, *args: Any) -> list[Any]:
        """See Crew."""
        return self._run(method, args, args)

    def scatter(self, method: str, argument: Any) -> None:
        """See Crew."""
        self._run(method, (argument,), ())

    def _run(self, method: str, first: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        self._command += 1
        for peer in range(1, self.size):
            order = ("do", self._command, method, rest)
            self.world.comm.send(order, dest=peer, tag=CONTROL)
        self.collective.begin(self._command)
        failures: list[BaseException] = []
        results: list[Any] = [None]
        try:
            results[0] = getattr(self.replica, method)(*first)
        except PeerFailedError as error:
            failures.append(error)
        except VerydeepError as error:
            self.replica.link.abort()
            failures.append(error)
        self._collect(results, failures)
        if failures:
            raise first_cause(failures)
        return results

    def _collect(self, results: list[Any], failures: list[BaseException]) -> None:
        """Take every rank's answer to the command at hand, or name those that give none."""
        waiting = set(range(1, self.size))
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + self.world.patience
        while waiting:
            for peer in sorted(waiting):
                if self.world.comm.Iprobe(source=peer, tag=RESULT):
                    command, kind, value = self.world.comm.recv(source=peer, tag=RESULT)
                    if command == self._command:
                        waiting.discard(peer)
                        answers[peer] = value
                        if kind:
                            failures.append(_failure(peer, kind, value))
            if waiting and time.monotonic() > deadline:
                failures.append(late_ranks(self.world, waiting))
                return
            time.sleep(_NAP)
        results += [answers[peer] for peer in sorted(answers)]

    def close(self) -> None:
        """See Crew."""
        self.world.stop()
        self.replica.close()


def start_mpi(world: World, solver: Solver, plan: ShardPlan) -> MpiCrew:
    """Put a solver, on rank 0, on all ranks of an mpirun."""
    crew = MpiCrew(world, solver, plan)
    attach(solver, crew, plan)
    return crew


def follow(world: World, open_backend: Callable[[Any], Backend]) -> int:
    """What a rank other than 0 does: build its replica, do what it is told, until told to stop.

    Returns the exit status. Signals that ask for a snapshot or an end are rank 0's to answer.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    replica: Replica | None = None
    collective: MpiCollective | None = None
    try:
        while True:
            kind, *order = _next_order(world)
            if kind == "stop":
                return 0
            if kind == "build":
                answer: tuple[int, str, Any] = (0, "", None)
                try:
                    collective, replica = _build(world, order[0], open_backend)
                except Exception as error:  # noqa: BLE001  rank 0 raises it
                    answer = (0, *_described(error))
                world.comm.send(answer, dest=0, tag=RESULT)
            elif replica is not None and collective is not None:
                _obey(world, replica, collective, *order)
    finally:
        if replica is not None:
            replica.close()


def _obey(
    world: World,
    replica: Replica,
    collective: MpiCollective,
    command: int,
    method: str,
    args: Sequence[Any],
) -> None:
    collective.begin(command)
    answer: tuple[int, str, Any]
    try:
        answer = (command, "", getattr(replica, method)(*args))
    except Exception as error:  # noqa: BLE001  rank 0 raises it
        if not isinstance(error, PeerFailedError):
            replica.link.abort()
        answer = (command, *_described(error))
    world.comm.send(answer, dest=0, tag=RESULT)


def _next_order(world: World) -> Any:
    while not world.comm.Iprobe(source=0, tag=CONTROL):
        time.sleep(_NAP)
    return world.comm.recv(source=0, tag=CONTROL)


def _build(
    world: World, setup: Any, open_backend: Callable[[Any], Backend]
) -> tuple[MpiCollective, Replica]:
    text, options, seed, plan, patience = setup
    world.patience = patience
    param = proto.SolverParameter.FromString(text)
    backend = open_backend(param)
    collective = MpiCollective(world, backend.dtype)
    return collective, further_replica(param, options, seed, plan, backend, collective)


def _described(error: BaseException) -> tuple[str, str]:
    known = isinstance(error, VerydeepError)
    return type(error).__name__, str(error) if known else repr(error)


def _failure(rank: int, kind: str, message: str) -> VerydeepError:
    """What a rank raised, to be raised here."""
    if kind == PeerFailedError.__name__:
        return PeerFailedError(message)
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, VerydeepError):
        return found(f"rank {rank}: {message}")
    return TrainingError(
        f"rank {rank}: {message}; expected it to compute as rank 0 does; look at its output; the "
        "last snapshot is intact"
    )
