"""Planted faults: which of the emulator's ways finds which.

Without a sanitizer a fault shows as an error that names kernel, block and thread, as NaN in the
result, or as results that differ between the orders of threads.
"""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError
from tests.cuda_kernels.bench import ORDERS, Bench, Host, in_all_orders

pytestmark = pytest.mark.usefixtures("compiler")

N = 128
X = np.arange(1, N + 1, dtype=np.float32)
EMPTY = np.zeros(N, np.float32)


def launch(kernel: str, order: str = "forward", x: Host = X, shared_bytes: int = 0) -> Host:
    bench = Bench(order=order, seed=1)
    args = (x, np.zeros(N, np.float32), N)
    return bench.run("faults", kernel, args, block=(N, 1, 1), shared_bytes=shared_bytes)[1]


@pytest.mark.parametrize(
    ("kernel", "x", "expected"),
    [
        ("reverse", X, X[::-1]),
        ("reuse", np.concatenate([X, 10 * X]), 11 * X[::-1]),
        ("copy", X, X),
        ("column_sums", X, np.concatenate([X[:64] + X[64:], EMPTY[:64]])),
    ],
)
def test_the_right_twins_pass_in_every_order(kernel: str, x: Host, expected: Host) -> None:
    y = in_all_orders("faults", kernel, (x, np.zeros(N, np.float32), N), block=(N, 1, 1))[1]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("kernel", "x"), [("missing_barrier", X), ("write_after_read", np.concatenate([X, 10 * X]))]
)
def test_a_barrier_that_is_missing_shows_in_the_order(kernel: str, x: Host) -> None:
    results = {order: launch(kernel, order, x) for order in ORDERS}
    bits = {y.tobytes() for y in results.values()}
    assert len(bits) > 1
    with pytest.raises(AssertionError, match=f"{kernel}: the order of threads shows"):
        in_all_orders("faults", kernel, (x, np.zeros(N, np.float32), N), block=(N, 1, 1))


def test_shuffled_order_finds_a_missing_barrier_for_any_seed() -> None:
    args = (X, np.zeros(N, np.float32), N)
    for seed in range(20):
        y = Bench(order="shuffled", seed=seed).run(
            "faults", "missing_barrier", args, block=(N, 1, 1)
        )[1]
        assert np.isnan(y).any(), seed


@pytest.mark.parametrize(
    ("kernel", "nan_at"),
    [
        ("read_beyond", [127]),
        ("wrong_stride", [63]),
        ("shared_read_beyond", [127]),
        ("shared_not_written", [0]),
    ],
)
def test_memory_that_was_not_written_is_nan(kernel: str, nan_at: list[int]) -> None:
    for order in ORDERS:
        y = launch(kernel, order)
        assert np.flatnonzero(np.isnan(y)).tolist() == nan_at


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (
            "write_beyond",
            r"kernel 'write_beyond': it wrote beyond the end of the allocation of 512 bytes at",
        ),
        (
            "write_before",
            r"kernel 'write_before': it wrote before the start of the allocation of 512 bytes at",
        ),
        (
            "write_far",
            r"kernel 'write_far', block \(0, 0, 0\): thread \(0, 0, 0\): a read or write 32256 "
            r"bytes beyond the allocation of 512 bytes at 0x[0-9a-f]+",
        ),
        (
            "write_wild",
            r"kernel 'write_wild', block \(0, 0, 0\): thread \(0, 0, 0\): a read or write at "
            r"(a wild|an impossible) address, far from every allocation",
        ),
        (
            "shared_write_beyond",
            r"kernel 'shared_write_beyond', block \(0, 0, 0\): a write beyond the ends of shared "
            "array 'tile'",
        ),
        (
            "return_before_barrier",
            r"divergent __syncthreads: thread \(0, 0, 0\) waits at \S*faults.cu:\d+, thread "
            r"\(100, 0, 0\) has ended; every thread must reach the same barrier",
        ),
        (
            "fewer_barriers",
            r"divergent __syncthreads: thread \(0, 0, 0\) waits at \S*faults.cu:\d+, thread "
            r"\(100, 0, 0\) has ended; every thread must reach the same barrier",
        ),
        (
            "two_barriers",
            r"divergent __syncthreads: thread \(0, 0, 0\) waits at \S*faults.cu:(\d+), thread "
            r"\(64, 0, 0\) waits at \S*faults.cu:(?!\1;)\d+; every thread",
        ),
        (
            "absent_lanes",
            r"thread \(0, 0, 0\) waits at \S*faults.cu:\d+ for the lanes of mask 0xffffffff, and "
            "not all of them arrive there",
        ),
        (
            "not_in_own_mask",
            r"thread \(16, 0, 0\): a lane is not in the mask of its own warp instruction",
        ),
        (
            "divide_by_zero",
            r"kernel 'divide_by_zero', block .*thread \(0, 0, 0\): an integer division by zero",
        ),
        (
            "deep_stack",
            r"thread \(0, 0, 0\): more than 65536 bytes of local arrays and calls",
        ),
        (
            "too_much_shared",
            r"49200 bytes of static shared memory with 'more'; expected at most 49152; use "
            "SHARED_DYNAMIC",
        ),
    ],
)
def test_what_must_not_be_done_is_an_error(kernel: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        launch(kernel)


def test_dynamic_shared_memory_must_be_granted() -> None:
    with pytest.raises(
        DeviceError,
        match="'tile' has 120000 bytes of dynamic shared memory, the launch granted 4096; launch "
        "with shared_bytes=120000",
    ):
        launch("dynamic_shared", shared_bytes=4096)
    np.testing.assert_array_equal(launch("dynamic_shared", shared_bytes=120000), X)


def test_after_an_error_the_next_launch_is_judged_for_itself() -> None:
    bench = Bench()
    args = (X, np.zeros(N, np.float32), N)
    for kernel in ("write_beyond", "write_wild", "return_before_barrier", "absent_lanes"):
        with pytest.raises(DeviceError):
            bench.run("faults", kernel, args, block=(N, 1, 1))
        y = bench.run("faults", "reverse", args, block=(N, 1, 1))[1]
        np.testing.assert_array_equal(y, X[::-1])
