"""A trace records the states that a step used, and detects when they differ."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from runtime.backend.recording import Access
from runtime.core.synced_memory import SyncedMemory
from runtime.net.memory_trace import Fit, MemoryTrace
from tests.runtime.net.replayed import INPUTS, LAYERS, built

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")


def test_a_trace_is_pure_where_nothing_is_written_on_the_host() -> None:
    with built(INPUTS + LAYERS) as net:
        backend: Any = net.backend
        data = net.blobs["data"].data
        for access in Access:
            trace = MemoryTrace()
            trace.note(data, access, backend.recorder)
            assert trace.pure is (access is not Access.HOST_WRITE)
        kept = data.exposed_host()
        kept[...] = 1.0
        trace = MemoryTrace()
        trace.note(data, Access.HOST_READ, backend.recorder)
        assert not trace.pure


def test_traces_that_bind_a_memory_twice_do_not_join() -> None:
    with built(INPUTS + LAYERS) as net:
        backend: Any = net.backend
        data, label = (net.blobs[name].data for name in ("data", "label"))
        first, second = MemoryTrace(), MemoryTrace()
        first.note(data, Access.DEVICE_READ, backend.recorder)
        assert MemoryTrace.joined([first, first]).pure
        data.share(label)
        second.note(data, Access.DEVICE_READ, backend.recorder)
        assert not MemoryTrace.joined([first, second]).pure


def test_fits_is_a_matter_of_state() -> None:
    with built(INPUTS + LAYERS) as net:
        backend: Any = net.backend
        data = net.blobs["data"].data
        data.mutable_host()[...] = 1.0
        trace = MemoryTrace()
        trace.note(data, Access.DEVICE_WRITE, backend.recorder)
        trace.note(data, Access.VERSION, backend.recorder)
        assert trace.fits() is Fit.NOW
        data.clear()
        assert trace.fits() is Fit.NEVER
        assert trace.freed(MemoryTrace(versions={id(data): -1})).fits() is Fit.LATER
        trace = MemoryTrace()
        trace.note(data, Access.DEVICE_READ, backend.recorder)
        net.blobs["data"].reshape((1, 3, 8, 8))
        assert trace.fits() is Fit.LATER
        net.blobs["data"].reshape((4, 3, 8, 8))
        assert trace.fits() is Fit.NOW
        net.blobs["data"].reshape((40, 3, 8, 8))
        assert trace.fits() is Fit.NEVER


def test_a_replay_leaves_the_newest_bytes_on_the_device() -> None:
    with built(INPUTS + LAYERS) as net:
        backend: Any = net.backend
        read, written = (SyncedMemory(backend) for _ in range(2))
        trace = MemoryTrace()
        for memory, access in ((read, Access.DEVICE_READ), (written, Access.DEVICE_WRITE)):
            memory.reshape((3,))
            memory.mutable_host()[...] = 2.0
            trace.note(memory, access, backend.recorder)
            memory.mutable_host()[...] = 5.0
        versions = read.version, written.version
        trace.ready()
        backend.vectors.scal(3.0, read.storage.device(write=False))
        backend.vectors.scal(3.0, written.storage.device(write=False))
        trace.replayed()
        # What was only read is as the host has it.
        assert read.host().tolist() == [5.0] * 3
        assert written.host().tolist() == [15.0] * 3
        assert (read.version == versions[0], written.version == versions[1]) == (True, False)
