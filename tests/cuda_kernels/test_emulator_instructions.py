"""The instructions that the emulator offers, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cuda_kernels.bench import ORDERS, Bench, Host, in_all_orders

pytestmark = pytest.mark.usefixtures("compiler")

LANES = np.arange(32)


def test_instructions_of_a_warp() -> None:
    x = np.random.default_rng(0).integers(0, 100, 32).astype(np.float32)
    ballot = sum(1 << lane for lane in range(0, 32, 3))
    segment = LANES // 4 * 4
    expected = [
        np.full(32, x[5]),
        x[LANES // 8 * 8 + (LANES + 3) % 8],
        x[np.where(LANES >= 2, LANES - 2, LANES)],
        x[np.maximum(LANES - 1, segment)],
        x[np.where(LANES < 30, LANES + 2, LANES)],
        x[np.where((LANES + 3) // 16 == LANES // 16, LANES + 3, LANES)],
        x[LANES ^ 9],
        np.full(32, ballot >> 8),
        np.full(32, 1),
        np.full(32, 1),
        np.full(32, 0),
        np.full(32, x.sum()),
        np.where(LANES < 16, x[LANES ^ 1], x[LANES ^ 2]),
        5 * (31 - LANES),
        np.where(LANES < 16, np.nan, x),
    ]
    y = in_all_orders("warp", "instructions", (x, np.zeros((15, 32), np.float32)))[1]
    for row, (got, want) in enumerate(zip(y, expected, strict=True)):
        np.testing.assert_array_equal(got, want, err_msg=f"row {row}")


def test_threads_and_blocks_take_turns_in_the_order_that_was_asked_for() -> None:
    def turns(order: str, seed: int = 0) -> list[int]:
        args = (np.zeros(1, np.int32), np.zeros(3 * 80, np.int32))
        bench = Bench(order=order, seed=seed)
        found: Host = bench.run("warp", "take_turns", args, grid=(3, 1, 1), block=(80, 1, 1))[1]
        return found.tolist()

    everybody = list(range(240))
    assert turns("forward") == everybody
    assert turns("reversed") == everybody[::-1]
    shuffled = [turns("shuffled", seed) for seed in (1, 2, 1)]
    assert all(sorted(order) == everybody for order in shuffled)
    assert shuffled[0] == shuffled[2] != shuffled[1]
    # Not the forward order from another start: lanes, warps and blocks are all mixed.
    steps = {b - a for a, b in zip(shuffled[0], shuffled[0][1:], strict=False)}
    assert len(steps) > 20


def test_sums_of_a_block_are_exact_for_whole_numbers() -> None:
    x = np.arange(1000, dtype=np.float32)
    args = (x, np.zeros(2, np.float32), 1000)
    y = in_all_orders("warp", "block_sums", args, block=(256, 1, 1))[1]
    assert y.tolist() == [499500.0, 999000.0]


def test_atomics_of_whole_numbers() -> None:
    counts, flags = np.array([10, -5, 5, 0], np.int32), np.zeros(1, np.uint32)
    got, bits = in_all_orders("warp", "atomics", (counts, flags), grid=(3, 1, 1), block=(40, 1, 1))
    assert got.tolist() == [10 + 119 * 60, 119, -119, 5]
    assert bits[0] == 15 * 255


def tf32(x: Host) -> Host:
    """10 bits of mantissa, ties away from zero."""
    return ((x.view(np.uint32) + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)


def bf16(x: Host) -> Host:
    """7 bits of mantissa, ties to even."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def test_rounding_to_the_narrow_types() -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(64) * 10.0 ** rng.integers(-20, 20, 64)).astype(np.float32)
    # Ties: exactly between two tf32 numbers, and between two bf16 numbers, on either side.
    x[:4] = [1 + 2**-11, -1 - 2**-11, 1 + 2**-8, 1 + 3 * 2**-8]
    args = (x, np.zeros(64, np.float32), np.zeros(64, np.float32), 64)
    _, as_tf32, as_bf16 = Bench().run("tensor", "rounded", args, block=(64, 1, 1))
    np.testing.assert_array_equal(as_tf32, tf32(x))
    np.testing.assert_array_equal(as_bf16, bf16(x))
    assert as_tf32[:2].tolist() == [1 + 2**-10, -1 - 2**-10]
    assert as_bf16[2:4].tolist() == [1.0, 1 + 2**-6]


def test_infinity_and_nan_stay_what_they_are() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 3.4e38], np.float32)
    args = (x, np.zeros(4, np.float32), np.zeros(4, np.float32), 4)
    _, as_tf32, as_bf16 = Bench().run("tensor", "rounded", args, block=(4, 1, 1))
    assert as_tf32[:2].tolist() == as_bf16[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(as_tf32[2])
    assert np.isnan(as_bf16[2])


@pytest.mark.parametrize(
    ("kernel", "depth", "narrow"),
    [("tf32_product", 8, tf32), ("bf16_product_16", 16, bf16), ("bf16_product_8", 8, bf16)],
)
def test_tensor_cores_multiply_rounded_numbers(kernel: str, depth: int, narrow: object) -> None:
    assert callable(narrow)
    rng = np.random.default_rng(2)
    a = rng.standard_normal((16, depth)).astype(np.float32)
    b = rng.standard_normal((depth, 8)).astype(np.float32)
    d = rng.standard_normal((16, 8)).astype(np.float32)
    got = in_all_orders("tensor", kernel, (a, b, d))[2]
    want = d + narrow(a).astype(np.float64) @ narrow(b).astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)
    # The rounding shows: full precision is another result.
    assert np.abs(got - (d + a.astype(np.float64) @ b)).max() > 1e-5


STEPS = np.arange(4 * 128, dtype=np.float32).reshape(4, 128)


def ring(kernel: str, order: str) -> Host:
    args = (STEPS, np.zeros(128, np.float32), 4)
    return Bench(order=order, seed=2).run("tensor", kernel, args, block=(128, 1, 1))[1]


def test_copies_past_the_registers_arrive_when_waited_for() -> None:
    for order in ORDERS:
        np.testing.assert_array_equal(ring("ring_right", order), STEPS.sum(0)[::-1])


def test_reading_before_the_copy_arrives_shows() -> None:
    assert np.isnan(ring("ring_no_wait", "reversed")).any()


def test_waiting_for_too_few_copies_shows() -> None:
    assert np.isnan(ring("ring_short_wait", "reversed")).any()


def test_overwriting_what_is_still_read_shows() -> None:
    assert len({ring("ring_no_barrier", order).tobytes() for order in ORDERS}) > 1


@pytest.mark.parametrize("valid", [0, 4, 12, 16])
def test_the_rest_of_a_partial_copy_is_zero(valid: int) -> None:
    x = np.arange(1, 9, dtype=np.float32)
    y = in_all_orders(
        "tensor", "partial_copy", (x, np.zeros(8, np.float32), valid), block=(2, 1, 1)
    )
    want = np.where(np.arange(8) % 4 < valid // 4, x, 0)
    np.testing.assert_array_equal(y[1], want)
