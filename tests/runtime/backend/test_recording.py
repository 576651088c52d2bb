"""Launches are recorded while they are done, and a graph of them does the same again."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runtime.backend.base import Draw
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.recording import LaunchRecorder
from runtime.backend.registry import create_backend
from runtime.core.synced_memory import SyncedMemory
from tests.cuda_kernels.works import down, emulated, junk, normal, up

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

FLOAT = np.dtype(np.float32)


def recorder_of(backend: CudaBackend) -> LaunchRecorder:
    assert backend.recorder is not None
    return backend.recorder


def test_work_is_done_while_it_is_recorded_and_again_by_its_graph() -> None:
    with emulated() as (backend, driver):
        x, y = up(backend, normal(70)), up(backend, normal(70))
        recorder = recorder_of(backend)

        def work() -> None:
            backend.vectors.scal(2.0, x)
            backend.memory.copy(x, y)

        tape = recorder.record(work)
        assert (tape.pure, tape.calls, driver.launched) == (True, 2, ["scal"])
        graph = recorder.capture([tape, tape])
        np.testing.assert_array_equal(down(backend, y)[0], 2 * normal(70))
        recorder.replay(graph)
        np.testing.assert_array_equal(down(backend, y)[0], 8 * normal(70))
        assert (recorder.replays, backend.launches) == (1, 2)
        # Plain work afterwards is on no tape.
        backend.vectors.scal(2.0, x)
        assert tape.calls == 2


def test_tapes_are_equal_where_they_ask_for_the_same() -> None:
    with emulated() as (backend, _):
        x, y = up(backend, normal(70)), up(backend, normal(70))
        record = recorder_of(backend).record
        first = record(lambda: backend.vectors.axpy(2.0, x, y))
        assert first == record(lambda: backend.vectors.axpy(2.0, x, y))
        others: list[Callable[[], None]] = [
            lambda: backend.vectors.axpy(3.0, x, y),
            lambda: backend.vectors.axpy(2.0, y, x),
            lambda: backend.vectors.axpy(2.0, x.view(0, (5,)), y.view(0, (5,))),
            lambda: backend.vectors.sub(x, y, y),
            lambda: None,
        ]
        for other in others:
            assert first != record(other)


def test_what_moves_waits_or_allocates_is_not_pure() -> None:
    with emulated() as (backend, _):
        x, host = up(backend, normal(70)), normal(70)
        record = recorder_of(backend).record
        backend.vectors.dot(x, x)
        backend.memory.empty(5, FLOAT)  # what the pool has to give is given out all the same
        for work in (
            lambda: backend.memory.upload(host, x),
            lambda: backend.memory.download(x, host),
            lambda: backend.vectors.dot(x, x),
            lambda: backend.memory.empty(5, FLOAT),
        ):
            assert not record(work).pure
        paused = record(lambda: _paused(backend, host, x))
        assert (paused.pure, paused.calls) == (True, 0)


def _paused(backend: CudaBackend, host: Any, x: Any) -> None:
    with recorder_of(backend).paused():
        backend.memory.upload(host, x)


def test_what_fails_is_recorded_no_more() -> None:
    with emulated() as (backend, driver):
        x = up(backend, normal(70))
        recorder = recorder_of(backend)

        def work() -> None:
            backend.vectors.scal(2.0, x)
            raise ValueError("a layer's own")

        with pytest.raises(ValueError, match="a layer's own"):
            recorder.record(work)
        backend.vectors.scal(2.0, x)
        assert driver.launched == ["scal", "scal"]
        np.testing.assert_array_equal(down(backend, x)[0], 4 * normal(70))
        assert recorder.record(lambda: None).calls == 0


@pytest.mark.parametrize("ahead", [0, 5, -3])
def test_a_graph_draws_by_the_clock(ahead: int) -> None:
    """Also if the first sample of a layer is not the first of the pass."""
    shape, masks = (3, 50), []
    with emulated() as (backend, _):
        x, y = up(backend, normal(*shape)), junk(backend, shape)
        mask = junk(backend, shape, np.uint8)
        recorder = recorder_of(backend)

        def drop(number: int) -> None:
            draw = Draw(9, 2, number * shape[0] + ahead)
            backend.neurons.dropout_forward(x, y, mask, 0.5, draw)

        for number in (1, 2, 1 << 33):
            drop(number)
            masks.append(down(backend, mask, y))
        recorder.begin(1, ())
        tape = recorder.record(lambda: drop(1))
        recorder.begin(2, ())
        assert tape == recorder.record(lambda: drop(2))
        graph = recorder.capture([tape])
        for number, expected in zip((1, 2, 1 << 33), masks):
            recorder.begin(number, ())
            recorder.replay(graph)
            for got, want in zip(down(backend, mask, y), expected):
                np.testing.assert_array_equal(got, want)
    assert (masks[0][0] != masks[1][0]).any()


def test_a_graph_updates_by_the_rates_of_the_day() -> None:
    today, later = ([float(np.float32(rate)) for rate in two] for two in ((0.1, 0.03), (0.7, 1e-3)))
    results = []
    for replayed in (True, False):
        with emulated() as (backend, _):
            w, dw, past = (up(backend, normal(30)) for _ in range(3))
            recorder = recorder_of(backend)

            def update(rates: list[float], backend: Any = backend, *arrays: Any) -> None:
                for rate in rates:
                    backend.vectors.sgd_update(*arrays, rate, 0.9, 0.01)

            work = functools.partial(update, today, backend, w, dw, past)
            recorder.begin(0, today)
            tape = recorder.record(work)
            graph = recorder.capture([tape])
            recorder.begin(0, later)
            if replayed:
                recorder.replay(graph)
            else:
                update(later, backend, w, dw, past)
            results.append(down(backend, w, past))
            # A rate that was not passed to `begin` stays an argument.
            assert recorder.record(work) != tape
    np.testing.assert_array_equal(results[0], results[1])


def test_memories_report_how_they_are_used() -> None:
    with emulated() as (backend, _):
        memory = SyncedMemory(backend)
        memory.reshape((4,))
        accesses: list[str] = []
        recorder_of(backend).watch.on_access = lambda _, access: accesses.append(access.name)
        memory.dev()
        memory.mutable_dev()
        memory.overwritten_dev()
        memory.host()
        memory.mutable_host()
        memory.exposed_host()
        memory.clear()
        assert memory.reads_zero is False
        assert memory.version is None
        memory.share(memory)
        assert accesses == [
            "DEVICE_READ", "DEVICE_WRITE", "DEVICE_WRITE", "HOST_READ", "HOST_WRITE", "HOST_WRITE",
            "HOST_WRITE", "BINDING", "VERSION", "BINDING", "BINDING"
        ]  # fmt: skip


def test_a_backend_may_be_opened_without() -> None:
    made: Any = create_backend("emu", replay=False)
    assert made.recorder is None
    assert SyncedMemory(made).version is not None
