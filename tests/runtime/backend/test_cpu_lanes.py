"""Lanes: every piece once, with any number of threads; errors and memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from prototxt_gen.errors import DeviceError
from runtime.backend.cpu.lanes import (
    Lane,
    Lanes,
    aligned_empty,
    default_threads,
    limit_blas_threads,
)

FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("count", "grain"), [(0, 1), (1, 4), (7, 2), (100, 9), (64, 64)])
def test_every_element_is_dealt_once_in_pieces_of_the_grain(
    threads: int, count: int, grain: int
) -> None:
    seen: list[tuple[int, int]] = []

    def task(lane: Lane, start: int, stop: int) -> None:
        seen.append((start, stop))

    Lanes(threads).run(task, count, grain)
    want = [(start, min(start + grain, count)) for start in range(0, count, grain)]
    assert sorted(seen) == want


def test_lanes_work_side_by_side_with_memory_of_their_own() -> None:
    lanes, meeting = Lanes(3), threading.Barrier(3, timeout=30)
    memory: list[int] = []

    def task(lane: Lane, start: int, stop: int) -> None:
        memory.append(lane.scratch("a", (4,), FLOAT).ctypes.data)
        meeting.wait()

    lanes.run(task, 3)
    assert len(set(memory)) == 3


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_an_error_in_any_lane_reaches_the_caller(bad: int) -> None:
    def task(lane: Lane, start: int, stop: int) -> None:
        if start == bad:
            raise ValueError(f"piece {start}")

    lanes = Lanes(2)
    with pytest.raises(ValueError, match=f"piece {bad}"):
        lanes.run(task, 4)
    done: list[int] = []
    lanes.run(lambda lane, start, stop: done.append(start), 4)
    assert sorted(done) == [0, 1, 2, 3]


def test_numbers_that_overflow_are_no_news() -> None:
    huge = np.full(10, 3e38, np.float32)

    def task(lane: Lane, start: int, stop: int) -> None:
        huge[start:stop] *= 10.0

    for threads in (1, 2):
        Lanes(threads).run(task, 10, 3)
    assert np.isinf(huge).all()


def test_scratch_is_kept_and_grows() -> None:
    lane = Lane()
    first = lane.scratch("a", (10,), FLOAT)
    assert np.shares_memory(first, lane.scratch("a", (2, 3), FLOAT))
    assert not np.shares_memory(first, lane.scratch("b", (10,), FLOAT))
    assert lane.scratch("a", (100,), np.dtype(np.float64)).shape == (100,)
    assert lane.scratch_bytes() == 800 + 40


def test_zeros_are_zero_in_any_dtype() -> None:
    lane = Lane()
    for count, dtype in ((5, np.float64), (3, np.float32), (50, np.float32)):
        zeros = lane.zeros(count, np.dtype(dtype))
        assert zeros.dtype == dtype
        np.testing.assert_array_equal(zeros, np.zeros(count))


def test_arrays_start_on_a_cache_line() -> None:
    for count in (1, 1000):
        array = aligned_empty(count, FLOAT)
        assert array.shape == (count,)
        assert array.ctypes.data % 64 == 0


def test_threads_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() == 3
    for unusable in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", unusable)
        assert default_threads() >= 1


def test_fewer_than_one_thread() -> None:
    with pytest.raises(DeviceError, match="cpu backend: threads is 0; expected at least 1; omit"):
        Lanes(0)


def test_blas_computes_in_the_calling_thread() -> None:
    limit_blas_threads()
    assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
