"""Collective over sockets: arrays arrive, and ranks that fail or are missing are named."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import TrainingError
from runtime.parallel import sockets
from runtime.parallel.collective import PeerFailedError
from runtime.parallel.sockets import SocketCollective, new_session


def run(size: int, work: Callable[[SocketCollective], Any]) -> list[Any]:
    """The results of `work` on all ranks, each in a thread of its own."""
    session = new_session()

    def rank(number: int) -> Any:
        collective = SocketCollective(session, number, size, patience=20)
        try:
            return work(collective)
        finally:
            collective.close()

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(rank, range(size)))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 3_000_000])
def test_every_rank_gets_what_the_others_sent(size: int, count: int) -> None:
    if count > 1 and size > 3:
        count = 1000

    def work(collective: SocketCollective) -> bool:
        rank = collective.rank
        sent = [
            [np.full(count, 10 * rank + peer, np.float32), np.array([rank], np.float32)]
            for peer in range(size)
        ]
        for _ in range(2):
            incoming = collective.exchange(sent, [[count, 1]] * size)
            collective.release()
            for peer, (values, (number,)) in enumerate(incoming):
                assert number == peer
                assert len(values) == count
                assert (values == 10 * peer + rank).all()
        return True

    assert run(size, work) == [True] * size


def test_posts_are_finished_in_any_order_and_keep_their_dtype() -> None:
    def work(collective: SocketCollective) -> list[float]:
        first = collective.post([[np.array([1.0 + collective.rank])]] * 2, [[1]] * 2)
        second = collective.post([[np.array([2], np.float32)]] * 2, [[1]] * 2)
        other = 1 - collective.rank
        value = second.finish()[other][0]
        assert value.dtype == np.float32
        return [float(value[0]), float(first.finish()[other][0][0])]

    assert run(2, work) == [[2, 2], [2, 1]]


def test_a_rank_that_ends_is_named() -> None:
    def work(collective: SocketCollective) -> str:
        if collective.rank == 1:
            collective.abort()
            return ""
        with pytest.raises(PeerFailedError) as caught:
            collective.exchange([[np.zeros(4, np.float32)]] * 2, [[4]] * 2)
        return str(caught.value)

    assert run(2, work)[0] == "rank 0: rank 1 has ended; see its message"


def test_a_rank_that_is_late_or_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sockets, "_NOTICE_SECONDS", 0.02)

    def work(collective: SocketCollective) -> str:
        collective.patience = 0.1
        if collective.rank == 1:
            return ""
        with pytest.raises(TrainingError) as caught:
            collective.exchange([[]] * 2, [[], [4]])
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:
        session = new_session()
        made = list(pool.map(lambda r: SocketCollective(session, r, 2), range(2)))
    assert "waited 0.1 s for rank(s) 1" in work(made[0])
    for collective in made:
        collective.close()
    for rank, missing in ((0, "1, 2"), (2, "0")):
        with pytest.raises(TrainingError, match=rf"waited 0.1 s for rank\(s\) {missing}; expected"):
            SocketCollective(new_session(), rank, 3, patience=0.1)
        assert f"rank {rank}: waiting for rank(s) {'0, 1' if rank else '1, 2'}" in caplog.text


def test_two_processes_of_one_rank_are_refused() -> None:
    session = new_session()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(sockets._address(session, 0))
        with pytest.raises(TrainingError, match="rank 0: Address already in use; expected one"):
            SocketCollective(session, 0, 2, patience=0.1)


def test_a_stranger_is_not_let_in() -> None:
    session = new_session()

    def stranger() -> None:
        while True:
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    connection.connect(sockets._address(session, 0))
                except OSError:
                    continue
                connection.recv(32)
                connection.sendall((1).to_bytes(4, "big") + bytes(32))
                assert connection.recv(1) == b""
                return

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(SocketCollective, session, 0, 2, np.float32, 20)
        pool.submit(stranger).result()
        second = pool.submit(SocketCollective, session, 1, 2, np.float32, 20)
        for made in (first.result(), second.result()):
            made.close()
