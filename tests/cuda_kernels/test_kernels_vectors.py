"""Elementwise kernels and sums at the edges of their quads, blocks and pieces."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen.geometry import PoolGeometry
from runtime.backend.base import Layout
from runtime.backend.cuda.backend import CudaBackend
from tests.cuda_kernels.works import down, junk, normal, up

COUNTS = [1, 3, 4, 5, 1023, 1024, 1025]


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("count", COUNTS)
def test_quads_end_with_the_array(emulator: CudaBackend, count: int, shift: int) -> None:
    x = np.arange(count, dtype=np.float32)
    around = up(emulator, np.full(count + shift + 7, -1.0, np.float32))
    inside = emulator.memory.view(around, shift, (count,))
    emulator.memory.upload(x, inside)
    emulator.vectors.scal(2.0, inside)
    emulator.vectors.axpy(1.0, up(emulator, x), inside)
    got = down(emulator, around)[0]
    np.testing.assert_array_equal(got[shift : shift + count], 3.0 * x)
    np.testing.assert_array_equal(got[:shift], -1.0)
    np.testing.assert_array_equal(got[shift + count :], -1.0)


@pytest.mark.parametrize("count", [1, 255, 4095, 4096, 4097, 3 * 4096, 300 * 4096 + 1])
def test_sums_of_whole_numbers_are_exact(emulator: CudaBackend, count: int) -> None:
    host = (np.arange(count) % 5 - 2).astype(np.float32)
    x, ones = up(emulator, host), up(emulator, np.ones(count, np.float32))
    assert emulator.vectors.asum(x) == np.abs(host).sum(dtype=np.float64)
    assert emulator.vectors.sumsq(x) == (host.astype(np.float64) ** 2).sum()
    assert emulator.vectors.dot(x, ones) == host.sum(dtype=np.float64)


def test_many_small_terms_and_a_large_one(emulator: CudaBackend) -> None:
    """Pieces are added in float64: in float32 every later piece would vanish."""
    pieces = 2 * 256 + 1  # the thread that has the large one adds two more
    host = np.full(pieces * 4096, 2.0**-12, np.float32)
    host[0] = 2.0**24
    total = emulator.vectors.asum(up(emulator, host))
    assert total == pytest.approx(2.0**24 + pieces - 1, abs=1.1, rel=0)


def test_no_elements_are_no_work(emulator: CudaBackend) -> None:
    nothing = up(emulator, np.empty(0, np.float32))
    emulator.vectors.scal(2.0, nothing)
    emulator.memory.fill(nothing, 1.0)
    assert emulator.vectors.asum(nothing) == 0.0


@pytest.mark.parametrize("layout", [Layout(2, 3, 8192), Layout(5, 2, 4097), Layout(300, 2, 7)])
def test_bias_gradient_of_whole_numbers_is_exact(emulator: CudaBackend, layout: Layout) -> None:
    shape = (layout.outer, layout.channels, layout.inner)
    dy = (np.arange(np.prod(shape)) % 7 - 3).astype(np.float32).reshape(shape)
    db = up(emulator, np.full(layout.channels, 10.0, np.float32))
    emulator.products.bias_backward(layout, up(emulator, dy), db)
    np.testing.assert_array_equal(down(emulator, db)[0], 10.0 + dy.sum((0, 2)))


def test_relu_of_infinity_and_nan(emulator: CudaBackend) -> None:
    x = up(emulator, np.array([-np.inf, np.inf, np.nan, -0.0, 2.0], np.float32))
    y = junk(emulator, (5,))
    emulator.neurons.relu_forward(x, y, 0.0)
    np.testing.assert_array_equal(down(emulator, y)[0], [0.0, np.inf, np.nan, 0.0, 2.0])


@pytest.mark.parametrize("shift", [0, 1])
def test_pooling_by_half_is_pooling(emulator: CudaBackend, shift: int) -> None:
    """The kernel for the paper's windows against the one for any, on a plane a row longer."""
    geom = PoolGeometry(2, 3, 8, 12, (2, 2), (2, 2))
    longer = PoolGeometry(2, 3, 9, 12, (2, 2), (2, 2), ceil=False)
    x, dy = normal(*geom.in_shape), normal(*geom.out_shape)
    results = []
    for each in (geom, longer):
        image = np.zeros(each.in_shape, np.float32)
        image[:, :, :8] = x
        mask = emulator.memory.view(
            emulator.memory.empty(dy.size + shift, np.dtype("i4")), shift, dy.shape
        )
        y, dx = up(emulator, dy, shift), up(emulator, image, shift)
        emulator.pool.max_forward(each, dx, y, mask)
        emulator.pool.max_backward(each, up(emulator, dy, shift), mask, dx)
        results.append(down(emulator, y, mask, dx))
    (y1, mask1, dx1), (y2, mask2, dx2) = results
    np.testing.assert_array_equal(y1, y2)
    np.testing.assert_array_equal(mask1, mask2)
    np.testing.assert_array_equal(dx1, dx2[:, :, :8])
    np.testing.assert_array_equal(dx2[:, :, 8], 0.0)
