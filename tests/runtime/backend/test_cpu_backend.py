"""CpuBackend as a whole: its settings, and bits that do not depend on its threads."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError, ShapeError
from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.base import Draw, Epilogue, Layout
from runtime.backend.cpu.backend import CpuBackend

NumpyBackend = functools.partial(CpuBackend, native=False)

FLOAT = np.dtype(np.float32)
Arrays = list[np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape, np.float32)


def convolve(geom: ConvGeometry) -> Callable[[CpuBackend], Arrays]:
    def passes(backend: CpuBackend) -> Arrays:
        plan = backend.conv.plan(geom)
        x, weight, dy = normal(*geom.in_shape), normal(*geom.weight_shape), normal(*geom.out_shape)
        y, dx, dw = np.empty_like(dy), np.empty_like(x), np.zeros_like(weight)
        backend.conv.forward(plan, x, weight, Epilogue(normal(geom.k), relu=True), y, None)
        backend.conv.backward_data(plan, dy, weight, dx, None)
        backend.conv.backward_weight(plan, x, dy, dw)
        return [y, dx, dw]

    return passes


def vectors(backend: CpuBackend) -> Arrays:
    x, y = normal(300_001), normal(300_001)[::-1].copy()
    sums = [backend.vectors.asum(x), backend.vectors.sumsq(x), backend.vectors.dot(x, y)]
    history = np.zeros_like(x)
    backend.vectors.axpy(0.3, x, y)
    backend.vectors.sgd_update(x, y, history, 0.1, 0.9, 5e-4)
    return [np.array(sums), x, y, history]


def products(backend: CpuBackend) -> Arrays:
    a, b, c, bias = normal(300, 200), normal(400, 200), normal(300, 400), np.zeros(300, np.float32)
    backend.products.gemm(False, True, 0.5, a, b, 1.0, c)
    backend.products.bias_backward(Layout(1, 300, 400), c, bias)
    return [c, bias]


def planes(backend: CpuBackend) -> Arrays:
    geom = PoolGeometry(4, 40, 30, 30, (3, 3), (2, 2))
    x, y = normal(*geom.in_shape), np.empty(geom.out_shape, np.float32)
    mask, dx = np.empty(geom.out_shape, np.int32), np.empty_like(x)
    backend.pool.max_forward(geom, x, y, mask)
    backend.pool.max_backward(geom, y, mask, dx)
    scale, normed, kept = np.empty_like(x), np.empty_like(x), np.empty(x.shape, np.uint8)
    backend.lrn.forward(LRNGeometry(4, 40, 30, 30), x, scale, normed)
    backend.neurons.dropout_forward(normed, normed, kept, 0.3, Draw(1, 2, 3))
    return [y, mask, dx, scale, normed, kept]


WORK = [
    convolve(ConvGeometry(9, 16, 20, 20, 24, (3, 3), (1, 1))),
    convolve(ConvGeometry(2, 130, 14, 14, 140, (3, 3), (1, 1))),
    convolve(ConvGeometry(9, 3, 33, 33, 16, (3, 3), (1, 1))),
    convolve(ConvGeometry(2, 12, 40, 40, 18, (5, 5), (2, 2), (2, 2), group=2)),
    convolve(ConvGeometry(1, 64, 9, 9, 50, (3, 3))),
    vectors,
    products,
    planes,
]


@pytest.mark.parametrize("work", WORK)
def test_bits_do_not_depend_on_the_number_of_threads(
    work: Callable[[CpuBackend], Arrays],
) -> None:
    alone = work(NumpyBackend(threads=1))
    for threads in (2, 5):
        for one, many in zip(alone, work(NumpyBackend(threads=threads)), strict=True):
            assert one.tobytes() == many.tobytes()


def test_exact_is_more_exact() -> None:
    geom = ConvGeometry(1, 64, 24, 24, 64, (3, 3), (1, 1))
    x, weight = normal(*geom.in_shape), normal(*geom.weight_shape)

    def forward(backend: CpuBackend) -> np.ndarray:
        y = np.empty(geom.out_shape, backend.dtype)
        operands = (x.astype(backend.dtype), weight.astype(backend.dtype))
        backend.conv.forward(backend.conv.plan(geom), *operands, Epilogue(), y, None)
        return y

    reference = forward(NumpyBackend(np.float64))
    fast, exact = forward(NumpyBackend()), forward(NumpyBackend(exact=True))
    norm = float(np.linalg.norm(reference))
    assert float(np.linalg.norm(exact - reference)) / norm < 5e-7
    assert float(np.linalg.norm(fast - reference)) / norm < 1.5e-6


def test_names_and_dtypes() -> None:
    assert (NumpyBackend().name, NumpyBackend().dtype) == ("cpu", np.float32)
    assert (NumpyBackend(np.float64).name, NumpyBackend("float64").dtype) == ("cpu64", np.float64)
    with pytest.raises(DeviceError, match="cpu backend: dtype is float16; expected float32 or"):
        NumpyBackend(np.float16)


def test_arrays_are_views_of_flat_memory() -> None:
    backend = NumpyBackend(threads=1)
    flat = backend.memory.empty(12, FLOAT)
    part = backend.memory.view(flat, 2, (2, 5))
    assert np.shares_memory(flat, part)
    assert part.flags.c_contiguous
    backend.memory.synchronize()


def test_copy_2d_stays_inside() -> None:
    backend = NumpyBackend(threads=1)
    src, dst = np.arange(12.0, dtype=np.float32), np.zeros(12, np.float32)
    backend.memory.copy_2d(src, dst, 0, 5, (100, 0), (100, 0))
    with pytest.raises(ShapeError, match="copy_2d: 2 runs of 4 elements from 6 with stride 6; exp"):
        backend.memory.copy_2d(src, dst, 2, 4, (0, 6), (6, 6))
    assert not dst.any()


def test_a_diverged_loss_shows_as_nan() -> None:
    backend, layout = NumpyBackend(threads=1), Layout(1, 2, 1)
    prob, loss, stats = np.full((1, 2), np.nan, np.float32), np.zeros(1, np.float32), normal(1)
    label = np.ones(1, np.float32)
    backend.softmax.loss_forward(layout, prob, label, None, None, loss, stats)
    assert np.isnan(loss[0])
