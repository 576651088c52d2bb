"""The exchange of arrays between threads, and replicas that fail or hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import DataError, TrainingError
from runtime.parallel.collective import ExchangeTable, PeerFailedError, ThreadCollective
from runtime.parallel.group import ThreadGroup


def together(size: int, act: Callable[[ThreadCollective], Any], patience: float = 20.0) -> Any:
    table = ExchangeTable(size, patience)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(act, [ThreadCollective(table, rank) for rank in range(size)]))


def test_everybody_gets_what_was_meant_for_them() -> None:
    def act(collective: ThreadCollective) -> list[float]:
        for turn in range(50):
            outgoing = [
                [np.array([100.0 * turn + 10 * collective.rank + peer])] for peer in range(3)
            ]
            incoming = collective.exchange(outgoing, [[1]] * 3)
            found = [float(parcel[0][0]) for parcel in incoming]
            assert found == [100.0 * turn + 10 * peer + collective.rank for peer in range(3)]
            collective.release()
        return found

    assert together(3, act)[1] == [4901.0, 4911.0, 4921.0]


def test_a_single_rank_waits_for_none() -> None:
    collective = ThreadCollective(ExchangeTable(1), 0)
    assert collective.exchange([[np.ones(2)]], [[2]])[0][0].tolist() == [1, 1]
    collective.release()


class Worker:
    """A fake replica."""

    def __init__(self, collective: ThreadCollective, wait: threading.Event) -> None:
        self.collective = self.link = collective
        self.wait = wait
        self.closed = False

    def meet(self) -> int:
        self.collective.exchange([[]] * self.collective.size, [[]] * self.collective.size)
        self.collective.release()
        return self.collective.rank

    def fail(self, rank: int, error: Exception) -> int:
        if self.collective.rank == rank:
            raise error
        return self.meet()

    def hang(self, rank: int) -> int:
        if self.collective.rank == rank:
            self.wait.wait(20)
            return rank
        return self.meet()

    def give(self, value: int = 7) -> int:
        return value + self.collective.rank

    def execute(self, command: str, args: Any) -> Any:
        return getattr(self, command)(*args)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def group() -> Any:
    wait = threading.Event()
    made = ThreadGroup(3, lambda rank, collective: Worker(collective, wait), patience=0.5)  # type: ignore[arg-type, return-value]
    yield made
    wait.set()
    made.close()
    assert all(worker.closed for worker in made.replicas)


def test_a_group_does_things_in_order(group: ThreadGroup) -> None:
    assert group.run("meet") == [0, 1, 2]
    assert group.run("give", 1) == [1, 2, 3]
    assert group.run("give", first=[2]) == [2, 8, 9]


@pytest.mark.parametrize("rank", [0, 2])
def test_the_failure_of_one_is_the_failure_of_all(group: ThreadGroup, rank: int) -> None:
    with pytest.raises(DataError, match="record 7 is gone"):
        group.run("fail", rank, DataError("record 7 is gone"))
    assert group.run("meet") == [0, 1, 2], "what is left can still be saved"


def test_a_bug_in_a_replica_is_reported_as_such(group: ThreadGroup) -> None:
    with pytest.raises(TrainingError) as caught:
        group.run("fail", 1, ZeroDivisionError("oh"))
    assert "replica 1: ZeroDivisionError('oh'); expected it to compute as the" in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_hung_replica_is_named(group: ThreadGroup) -> None:
    with pytest.raises(TrainingError) as caught:
        group.run("hang", 2)
    assert not isinstance(caught.value, PeerFailedError)
    assert "waited 0.5 s for replica(s) 2; expected all 3 within that time" in str(caught.value)


def test_all_end_at_once_each_in_its_own_thread() -> None:
    names = []

    class Ending(Worker):
        def close(self) -> None:
            self.meet()
            names.append(threading.current_thread().name)

    made = ThreadGroup(3, lambda rank, collective: Ending(collective, threading.Event()))  # type: ignore[arg-type, return-value]
    made.close()
    assert sorted(names)[1:] == ["replica-1_0", "replica-2_0"] and len(names) == 3


def test_what_cannot_be_built_closes_what_was() -> None:
    made = []

    def build(rank: int, collective: ThreadCollective) -> Any:
        if rank == 1:
            raise DataError("no such database")
        made.append(Worker(collective, threading.Event()))
        return made[-1]

    with pytest.raises(DataError, match="no such database"):
        ThreadGroup(2, build)
    assert made[0].closed
