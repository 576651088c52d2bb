"""The replicas of an mpirun: rank 0 has the solver, the other ranks execute its commands."""

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
from runtime.parallel.engine import ReplicaEngine
from runtime.parallel.group import first_cause
from runtime.parallel.mpi import CONTROL, RESULT, MpiCollective, Order, World, late_ranks
from runtime.parallel.replica import Command, Replica
from runtime.parallel.shard_plan import ShardPlan
from runtime.parallel.start import first_replica, further_replica
from runtime.solvers.engine import EngineSetup

_POLL_SECONDS = 0.0005


class MpiGroup:
    """The replicas as seen by rank 0. See ReplicaGroup."""

    def __init__(self, world: World, setup: EngineSetup, plan: ShardPlan) -> None:
        """Send the setup to the other ranks and wait until they have built their replicas.

        Raises:
            VerydeepError: a rank could not build its replica.
        """
        self.world, self.size = world, world.size
        self.collective = MpiCollective(world, setup.net.backend.dtype)
        self._number = 0
        options = dataclasses.replace(setup.options, rng=None)
        content = (setup.param.SerializeToString(), options, setup.seed, plan, world.patience)
        for peer in range(1, self.size):
            world.comm.send((Order.BUILD, *content), dest=peer, tag=CONTROL)
        self.replica = first_replica(setup, plan, self.collective)
        failures: list[BaseException] = []
        self._collect([], failures)
        if failures:
            raise first_cause(failures)

    def run(self, command: Command, *args: Any, first: Sequence[Any] | None = None) -> list[Any]:
        """See ReplicaGroup."""
        self._number += 1
        for peer in range(1, self.size):
            order = (Order.RUN, self._number, command, args)
            self.world.comm.send(order, dest=peer, tag=CONTROL)
        self.collective.begin(self._number)
        failures: list[BaseException] = []
        results: list[Any] = [None]
        try:
            results[0] = self.replica.execute(command, args if first is None else first)
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
        """Receive the result of the current command from every rank, or name the late ranks."""
        waiting = set(range(1, self.size))
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + self.world.patience
        while waiting:
            for peer in sorted(waiting):
                if self.world.comm.Iprobe(source=peer, tag=RESULT):
                    number, error_type, value = self.world.comm.recv(source=peer, tag=RESULT)
                    if number == self._number:
                        waiting.discard(peer)
                        answers[peer] = value
                        if error_type:
                            failures.append(_failure(peer, error_type, value))
            if waiting and time.monotonic() > deadline:
                failures.append(late_ranks(self.world, waiting))
                return
            time.sleep(_POLL_SECONDS)
        results += [answers[peer] for peer in sorted(answers)]

    def close(self) -> None:
        """See ReplicaGroup."""
        self.world.stop()
        self.replica.close()


def start_mpi(world: World, setup: EngineSetup, plan: ShardPlan) -> ReplicaEngine:
    """The engine of a solver on rank 0, with one replica on every rank of an mpirun.

    Raises:
        VerydeepError: a rank could not build its replica.
    """
    return ReplicaEngine(setup, MpiGroup(world, setup, plan), plan)


def follow(world: World, open_backend: Callable[[Any], Backend]) -> int:
    """Run a rank other than 0: build its replica and execute commands until rank 0 stops it.

    Returns the exit status. Signals are ignored, because rank 0 handles them.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    replica: Replica | None = None
    collective: MpiCollective | None = None
    try:
        while True:
            order, *content = _receive_order(world)
            if order is Order.STOP:
                return 0
            if order is Order.BUILD:
                answer: tuple[int, str, Any] = (0, "", None)
                try:
                    collective, replica = _build(world, content, open_backend)
                except Exception as error:  # noqa: BLE001  rank 0 raises it
                    answer = (0, *_described(error))
                world.comm.send(answer, dest=0, tag=RESULT)
            elif replica is not None and collective is not None:
                _execute(world, replica, collective, *content)
    finally:
        if replica is not None:
            replica.close()


def _execute(
    world: World,
    replica: Replica,
    collective: MpiCollective,
    number: int,
    command: Command,
    args: Sequence[Any],
) -> None:
    collective.begin(number)
    answer: tuple[int, str, Any]
    try:
        answer = (number, "", replica.execute(command, args))
    except Exception as error:  # noqa: BLE001  rank 0 raises it
        if not isinstance(error, PeerFailedError):
            replica.link.abort()
        answer = (number, *_described(error))
    world.comm.send(answer, dest=0, tag=RESULT)


def _receive_order(world: World) -> Any:
    while not world.comm.Iprobe(source=0, tag=CONTROL):
        time.sleep(_POLL_SECONDS)
    return world.comm.recv(source=0, tag=CONTROL)


def _build(
    world: World, content: Sequence[Any], open_backend: Callable[[Any], Backend]
) -> tuple[MpiCollective, Replica]:
    text, options, seed, plan, world.patience = content
    param = proto.SolverParameter.FromString(text)
    backend = open_backend(param)
    collective = MpiCollective(world, backend.dtype)
    return collective, further_replica(param, options, seed, plan, backend, collective)


def _described(error: BaseException) -> tuple[str, str]:
    text = str(error) if isinstance(error, VerydeepError) else repr(error)
    return type(error).__name__, text


def _failure(rank: int, error_type: str, message: str) -> VerydeepError:
    """The exception that another rank raised."""
    if error_type == PeerFailedError.__name__:
        return PeerFailedError(message)
    cls = getattr(errors, error_type, None)
    if isinstance(cls, type) and issubclass(cls, VerydeepError):
        return cls(f"rank {rank}: {message}")
    return TrainingError(
        f"rank {rank}: {message}; expected it to compute as rank 0 does; see its output; the last "
        "snapshot is intact"
    )
