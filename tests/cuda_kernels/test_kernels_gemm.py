"""Products of many tiles and splits: every element lands where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.products import LARGE, SMALL, WIDE, Product, Splits
from tests.cuda_kernels.works import down, up
from tests.oracle.tolerance import assert_close

# (m, n, k): below, at and beyond each tile's edge.
SIZES = [
    (64, 128, 8),
    (65, 129, 9),
    (128, 128, 16),
    (257, 131, 7),
    (3, 300, 1),
    (300, 3, 1),
    (200, 64, 15),
]


def product(m: int, n: int, k: int) -> Product:
    return Product(m, n, k, k, 1, n, 1, n)


@pytest.mark.parametrize("trans", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("mnk", SIZES, ids=str)
def test_rows_columns_and_depths_are_distinguished(
    emulator: CudaBackend, mnk: tuple[int, int, int], trans: tuple[bool, bool]
) -> None:
    """c[i, j] = i + 1024 j + k - 1: whole numbers, exact in float32."""
    m, n, k = mnk
    a, b = np.zeros((m, k), np.float32), np.zeros((k, n), np.float32)
    a[:], b[:] = 1.0 / k, 1.0  # would be visible if anything were left out or counted twice
    a[:, 0], b[0] = 1.0, np.arange(n) * 1024.0
    left, right = (a.T if trans[0] else a), (b.T if trans[1] else b)
    c = up(emulator, np.arange(m * n, dtype=np.float32).reshape(m, n))
    emulator.products.gemm(
        *trans, 1.0, up(emulator, left.copy()), up(emulator, right.copy()), 1.0, c
    )
    want = a.astype(np.float64) @ b + np.arange(m * n).reshape(m, n)
    assert_close("c", down(emulator, c)[0], want, k + 1, 1024.0 * n + m * n)


def test_a_long_depth_is_cut_and_added_up(emulator: CudaBackend) -> None:
    m, n, k = 5, 70, 5000
    assert product(m, n, k).splits() == Splits(19, 264)
    rng = np.random.default_rng(2)
    a, b, c = (rng.standard_normal(s, np.float32) for s in ((m, k), (n, k), (m, n)))
    out = up(emulator, c)
    emulator.products.gemm(False, True, -0.5, up(emulator, a), up(emulator, b), 2.0, out)
    want = -0.5 * (a.astype(np.float64) @ b.T.astype(np.float64)) + 2.0 * c
    scale = float(np.abs(a).max() * np.abs(b).max())
    assert_close("c", down(emulator, out)[0], want, k, scale)


def test_arrays_that_begin_off_the_alignment(emulator: CudaBackend) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((9, 12), np.float32), rng.standard_normal((12, 20), np.float32)
    aligned, shifted = up(emulator, np.zeros((9, 20), np.float32)), None
    emulator.products.gemm(False, False, 1.0, up(emulator, a), up(emulator, b), 0.0, aligned)
    shifted = up(emulator, np.zeros((9, 20), np.float32), 3)
    emulator.products.gemm(False, False, 1.0, up(emulator, a, 1), up(emulator, b, 2), 0.0, shifted)
    one, two = down(emulator, aligned, shifted)
    np.testing.assert_array_equal(one, two)


def test_beta_zero_does_not_read_c(emulator: CudaBackend) -> None:
    c = up(emulator, np.full((3, 3), np.nan, np.float32))
    ones = up(emulator, np.ones((3, 3), np.float32))
    emulator.products.gemm(False, False, 1.0, ones, ones, 0.0, c)
    np.testing.assert_array_equal(down(emulator, c)[0], 3.0)


def test_tiles_follow_the_shape() -> None:
    assert product(64, 4096, 9).tile == WIDE  # fc6 at batch 64
    assert product(4096, 25088, 64).tile == LARGE  # its weights' gradient
    assert product(512, 64, 9).tile == SMALL
    assert [LARGE.threads, WIDE.threads, SMALL.threads] == [256, 128, 64]


def test_splits_cover_the_depth_and_are_whole_slabs() -> None:
    for depth in (1, 8, 255, 256, 511, 512, 4096, 25088):
        for wanted in (0, 1, 2, 7, 16, 1000):
            splits = Splits.of(depth, wanted)
            assert splits.chunk % 8 == 0
            assert (splits.count - 1) * splits.chunk < depth <= splits.count * splits.chunk
            assert splits.count <= max(1, wanted)
    # fc6 at batch 64 has 32 tiles: enough splits to fill a large GPU more than once.
    assert product(64, 4096, 25088).splits() == Splits(16, 1568)
    assert product(4096, 25088, 64).splits().count == 1
