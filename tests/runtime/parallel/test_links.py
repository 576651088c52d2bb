"""Transports between devices: through the host, from peer to peer, and by a fake NCCL."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError, UsageError
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.backend.registry import create_backend
from runtime.parallel import nccl
from runtime.parallel.collective import ExchangeTable, PeerFailedError, ThreadCollective
from runtime.parallel.group import first_cause
from runtime.parallel.links import NCCL, PEER, STAGED, ChosenLink, PeerLink, StagedLink, link_for
from tests.runtime.parallel.spinning_nccl import SpinningNccl

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

Trained = Callable[..., str]


@pytest.fixture(scope="module")
def fake_nccl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with NCCL's functions, built from fake_nccl.cpp."""
    path = tmp_path_factory.mktemp("nccl") / "libnccl.so.2"
    source = Path(__file__).with_name("fake_nccl.cpp")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["g++", *flags, str(source), "-o", str(path)], check=True)
    return path


def emulated(**options: Any) -> CudaBackend:
    return CudaBackend(EmulatorDriver(0, **options))


def numbers(backend: CudaBackend, values: list[float]) -> Any:
    array = backend.memory.empty(len(values), backend.dtype)
    backend.memory.upload(np.array(values, backend.dtype), array)
    return array


def read(backend: CudaBackend, array: Any) -> list[float]:
    host = np.empty(array.size, backend.dtype)
    backend.memory.download(array, host)
    return [float(value) for value in host]


def together(size: int, transport: str, act: Callable[[Any], Any], **options: Any) -> list[Any]:
    table = ExchangeTable(size, 20.0)

    def run(rank: int) -> Any:
        link = ChosenLink(emulated(**options), ThreadCollective(table, rank), transport)
        try:
            return act(link)
        except BaseException:
            link.abort()
            raise
        finally:
            link.close()

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    if errors:
        raise first_cause(errors)
    return [future.result() for future in futures]


def two_turns(link: Any) -> list[list[float]]:
    """Rounds of two simultaneous exchanges: of one array per peer, and of two."""
    backend, seen = link.backend, []
    for turn in range(3):
        base = 100.0 * turn + 10 * link.rank
        first = [[numbers(backend, [base + peer])] for peer in range(3)]
        both = [numbers(backend, [base, base + 5]), numbers(backend, [base + 7])]
        posted = [link.post(first, [[1]] * 3), link.post([both] * 3, [[2, 1]] * 3)]
        incoming = [pending.finish() for pending in posted]
        seen = [
            [value for array in incoming[k][peer] for value in read(backend, array)]
            for peer in range(3)
            for k in range(2)
        ]
        link.release()
        backend.memory.fill(both[0], -1.0)
    return seen


@pytest.mark.parametrize("transport", [STAGED, PEER, NCCL])
def test_everybody_gets_what_was_meant_for_them(
    transport: str, fake_nccl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nccl, "find_library", lambda: str(fake_nccl))
    for rank, seen in enumerate(together(3, transport, two_turns)):
        expected = []
        for peer in range(3):
            base = 200.0 + 10 * peer
            expected += [[base + rank], [base, base + 5, base + 7]]
        assert seen == expected


@pytest.mark.parametrize(("streams", "lag"), [("late", True), ("early", False), ("early", True)])
@pytest.mark.parametrize("link_type", [PeerLink, StagedLink])
def test_copies_wait_for_the_computation_and_the_computation_for_copies(
    link_type: Any, streams: str, lag: bool
) -> None:
    """The stream of copies, of work, or both are as late as CUDA allows."""
    table = ExchangeTable(2, 20.0)
    links = [
        link_type(emulated(streams=streams), ThreadCollective(table, rank)) for rank in range(2)
    ]
    for link in links:
        link.stream.late = lag
    posted, sent = [], []
    for rank, link in enumerate(links):
        array = numbers(link.backend, [0.0] * 4)
        link.backend.memory.fill(array, 3.0 + rank)
        sent.append(array)
        posted.append(link.post([[array], [array]], [[4], [4]]))
    if link_type is StagedLink:
        with ThreadPoolExecutor(2) as pool:
            incoming = list(pool.map(lambda pending: pending.finish(), posted))
    else:
        incoming = [pending.finish() for pending in posted]
    for rank, link in enumerate(links):
        other = incoming[rank][1 - rank][0]
        link.backend.vectors.axpy(1.0, sent[rank], other)
        assert read(link.backend, other) == [7.0] * 4


def test_where_peers_cannot_be_read_the_way_is_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    together(3, "auto", two_turns)
    assert caplog.messages == ["Gradients are sent from device to device"]
    caplog.clear()
    together(3, "auto", two_turns, peers=False)
    assert caplog.messages == [
        "Gradients are sent through host memory (transport 'staged'): emu 0 cannot read the "
        "memory of emu 0"
    ]
    caplog.clear()
    together(3, STAGED, two_turns)
    assert caplog.messages == ["Gradients are sent through host memory"]
    with pytest.raises(DeviceError, match="transport 'peer': emu 0 cannot read the memory of emu"):
        together(2, PEER, lambda link: link.exchange([[]] * 2, [[]] * 2), peers=False)


def test_without_nccl_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nccl.find_library().endswith("libnccl.so.2")
    monkeypatch.setattr(nccl, "find_library", lambda: "/nowhere/libnccl.so.2")
    with pytest.raises(DeviceError) as caught:
        together(2, NCCL, two_turns)
    assert "transport 'nccl': /nowhere/libnccl.so.2 cannot be loaded" in str(caught.value)
    assert "pip install 'verydeep[nccl]', or 'verydeep[nccl13]' with CUDA 13; or use" in str(
        caught.value
    )


def test_ncclss_own_words_are_passed_on(fake_nccl: Path) -> None:
    library = nccl.NcclLibrary(str(fake_nccl))
    with pytest.raises(DeviceError, match="transport 'nccl': ncclSend: invalid usage; expected"):
        library.call("ncclSend", 0, 0, 0, 0, None, None)


def test_a_peers_failure_does_not_leave_the_device_waiting(
    fake_nccl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nccl, "find_library", lambda: str(fake_nccl))
    called: list[str] = []
    call = nccl.NcclLibrary.call

    def noted(self: Any, name: str, *args: Any) -> None:
        called.append(name)
        call(self, name, *args)

    monkeypatch.setattr(nccl.NcclLibrary, "call", noted)

    def act(link: Any) -> None:
        link.exchange([[]] * 2, [[]] * 2)
        link.release()
        if link.rank == 1:
            link.abort()
            return
        with pytest.raises(PeerFailedError):
            link.post([[]] * 2, [[]] * 2).finish()

    together(2, NCCL, act)
    assert called.count("ncclCommAbort") == 2 and "ncclCommDestroy" not in called


@pytest.mark.parametrize("slow", [0, 2])
def test_no_group_runs_while_a_replica_holds_the_interpreter(
    slow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of the driver that waits for its device would keep the other replicas from posting."""
    library = SpinningNccl(3, slow)
    monkeypatch.setattr(nccl, "load_nccl", lambda path: library)
    allocate, synchronize = EmulatorDriver.allocate, EmulatorDriver.synchronize

    def guarded_allocate(self: Any, size: int) -> int:
        assert not library.runs()
        return allocate(self, size)

    def guarded_synchronize(self: Any, stream: Any = None) -> None:
        assert not library.runs()
        synchronize(self, stream)

    def act(link: Any) -> list[list[float]]:
        link.exchange([[]] * 3, [[]] * 3)  # creates the link
        link.release()
        return two_turns(link)

    monkeypatch.setattr(EmulatorDriver, "allocate", guarded_allocate)
    monkeypatch.setattr(EmulatorDriver, "synchronize", guarded_synchronize)

    for rank, seen in enumerate(together(3, NCCL, act)):
        assert seen[::2] == [[200.0 + rank], [210.0 + rank], [220.0 + rank]]
    assert library.ends == [8] * 3  # the first, an empty one, and two of each of three turns


@pytest.mark.parametrize("slow", [0, 1])
def test_a_group_begins_when_all_replicas_post(slow: int, monkeypatch: pytest.MonkeyPatch) -> None:
    library = SpinningNccl(2, slow)
    monkeypatch.setattr(nccl, "load_nccl", lambda path: library)
    arrived = [0, 0]
    start = SpinningNccl.ncclGroupStart

    def checked(self: SpinningNccl) -> None:
        assert min(arrived) > min(self.ends) - 1
        start(self)

    monkeypatch.setattr(SpinningNccl, "ncclGroupStart", checked)

    def act(link: Any) -> None:
        for turn in range(3):
            if link.rank == slow:
                time.sleep(0.02)
            arrived[link.rank] = turn + 1
            link.exchange([[]] * 2, [[]] * 2)
            assert min(library.ends) == turn + 2
            link.release()

    together(2, NCCL, act)


def test_host_memory_needs_no_link() -> None:
    backend = create_backend("cpu", threads=1)
    collective = ThreadCollective(ExchangeTable(2), 0)
    assert link_for(backend, collective) is collective
    with pytest.raises(UsageError, match="--transport nccl: backend 'cpu' computes in host memory"):
        link_for(backend, collective, NCCL)


@pytest.mark.slow
@pytest.mark.parametrize("transport", [STAGED, NCCL])
def test_the_way_does_not_show_in_the_weights(
    case: Path, fresh: Trained, fake_nccl: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr(nccl, "find_library", lambda: str(fake_nccl))
    expected = fresh(case, 1, device="emu")
    assert fresh(case, 4, device="emu", transport=transport) == expected
