"""Vectors, products, neurons, pooling and LRN by the compiled kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError
from prototxt_gen.geometry import LRNGeometry, PoolGeometry
from runtime.backend.base import Draw, Layout
from runtime.backend.cpu.native_library import NativeLibrary
from runtime.backend.cpu.native_lrn import NativeLRN
from runtime.backend.cpu.native_memory import NativeMemory
from runtime.backend.cpu.native_neurons import NativeNeurons
from runtime.backend.cpu.native_pool import NativePool
from runtime.backend.cpu.native_products import NativeProducts
from runtime.backend.cpu.native_vectors import NativeVectors
from tests.oracle import lrn, neurons, pool, vectors
from tests.oracle.tolerance import assert_close
from tests.runtime.backend.native_kernels import Host, each_set, fenced, junk, normal, opened

THREADS = (1, 2, 3)
Op = Callable[[NativeLibrary], list[Host]]


def for_any_threads(isa: str, op: Op) -> list[Host]:
    """Run an op with 1, 2 and 3 threads: the bits must be the same."""
    first, *others = (op(opened(isa, threads)) for threads in THREADS)
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert a.tobytes() == b.tobytes(), "the number of threads shows"
    return first


SIZES = [
    (1, 1, 1),
    (1, 7, 5),
    (5, 1, 3),
    (8, 100, 300),
    (3, 33, 17),
    (40, 50, 60),
    (30, 33, 700),
    (17, 130, 5),
    (16, 65, 16),
    (33, 1, 70),
    (11, 530, 9),
    (70, 90, 270),
]


@each_set
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize(("rows", "cols", "depth"), SIZES)
def test_gemm(isa: str, rows: int, cols: int, depth: int, trans_a: bool, trans_b: bool) -> None:
    a = fenced(normal(depth, rows) if trans_a else normal(rows, depth))
    b = fenced(normal(cols, depth, seed=1) if trans_b else normal(depth, cols, seed=1))
    left, right = ((m.T if turned else m) for m, turned in ((a, trans_a), (b, trans_b)))
    scale = float(np.abs(a).max() * np.abs(b).max())
    for alpha, beta in ((1.0, 0.0), (0.5, 1.0), (-2.0, 0.25)):
        before = normal(rows, cols, seed=2) if beta else junk((rows, cols))

        def op(library: NativeLibrary, alpha: float = alpha, beta: float = beta) -> list[Host]:
            c = fenced(before)  # noqa: B023 - called at once
            NativeProducts(library).gemm(trans_a, trans_b, alpha, a, b, beta, c)
            return [c]

        (c,) = for_any_threads(isa, op)
        want = alpha * (left.astype(np.float64) @ right.astype(np.float64))
        want += beta * before if beta else 0.0
        assert_close("c", c, want, depth + 1, max(scale * abs(alpha), 4 * beta), 2.0)


@each_set
@pytest.mark.parametrize("depth", [1, 16, 32, 33, 257, 600])
@pytest.mark.parametrize("threads", THREADS)
def test_a_row_of_a_product_does_not_depend_on_others(isa: str, threads: int, depth: int) -> None:
    """CpuBackend.rows_independent: replicas compute only the rows that they own."""
    a, b = normal(depth, 70), normal(depth, 130, seed=1)
    gemm = NativeProducts(opened(isa, threads)).gemm
    whole = np.empty((70, 130), np.float32)
    gemm(True, False, 0.5, a, b, 0.0, whole)
    for first, last in ((0, 1), (0, 35), (35, 70), (3, 40), (69, 70)):
        part = np.empty((last - first, 130), np.float32)
        gemm(True, False, 0.5, np.ascontiguousarray(a[:, first:last]), b, 0.0, part)
        assert part.tobytes() == whole[first:last].tobytes()


@each_set
@pytest.mark.parametrize("rows", [1030, 1021])
def test_a_large_gradient_of_a_small_batch_goes_past_the_caches(isa: str, rows: int) -> None:
    """Where it is aligned; elsewhere not, and the bits are the same."""
    a, b = normal(5, rows), fenced(normal(5, 1040, seed=1))
    want = 0.5 * (a.astype(np.float64).T @ b.astype(np.float64))
    found = []
    for offset in (0, 1):
        memory = np.full(rows * 1040 + 17, np.nan, np.float32)
        start = -memory.ctypes.data % 64 // 4 + offset
        c = memory[start : start + rows * 1040].reshape(rows, 1040)
        NativeProducts(opened(isa, 2)).gemm(True, False, 0.5, a, b, 0.0, c)
        assert np.isnan(memory[:start]).all() and np.isnan(memory[start + c.size :]).all()
        found.append(c)
    assert found[0].tobytes() == found[1].tobytes()
    assert_close("c", found[0], want, 6, float(np.abs(a).max() * np.abs(b).max()), 2.0)


@each_set
def test_a_product_without_depth_scales_c(isa: str) -> None:
    c = normal(3, 5)
    want = 0.5 * c
    empty = np.empty((3, 0), np.float32), np.empty((0, 5), np.float32)
    NativeProducts(opened(isa, 2)).gemm(False, False, 1.0, *empty, 0.5, c)
    np.testing.assert_array_equal(c, want)


@each_set
def test_gemm_rejects_sizes_that_do_not_fit(isa: str) -> None:
    a, b, c = normal(2, 3), normal(4, 5), normal(2, 5)
    with pytest.raises(
        ShapeError, match=r"gemm: op\(a\) is 2x3, op\(b\) 4x5, c \(2, 5\); expected \(M,K\), "
    ):
        NativeProducts(opened(isa, 1)).gemm(False, False, 1.0, a, b, 0.0, c)


@each_set
@pytest.mark.parametrize("layout", [Layout(3, 70, 1), Layout(2, 5, 37), Layout(1, 1, 70000)])
def test_bias(isa: str, layout: Layout) -> None:
    shape = (layout.outer, layout.channels, layout.inner)
    y, bias = normal(*shape), fenced(normal(layout.channels))

    def op(library: NativeLibrary) -> list[Host]:
        products, added, gathered = NativeProducts(library), fenced(y), fenced(bias)
        products.bias_forward(layout, bias, added)
        products.bias_backward(layout, fenced(y), gathered)
        return [added, gathered]

    added, gathered = for_any_threads(isa, op)
    np.testing.assert_array_equal(added, y + bias[:, None])
    want = bias + y.astype(np.float64).sum(axis=(0, 2))
    assert_close("db", gathered, want, layout.outer * layout.inner, float(np.abs(y).max()))


@each_set
@pytest.mark.parametrize("count", [0, 1, 17, 65536, 200_003])
def test_vectors(isa: str, count: int) -> None:
    x, y, past = normal(count), normal(count, seed=1), normal(count, seed=2)

    def op(library: NativeLibrary) -> list[Host]:
        ops = NativeVectors(library)
        added, scaled, less, filled = fenced(y), fenced(x), junk((count,)), junk((count,))
        w, history, copied = fenced(x), fenced(past), junk((count,))
        ops.axpy(0.5, fenced(x), added)
        ops.scal(-3.0, scaled)
        ops.sub(fenced(x), fenced(y), less)
        NativeMemory(library).fill(filled, 2.5)
        NativeMemory(library).copy(fenced(x), copied)
        ops.sgd_update(w, fenced(y), history, 0.1, 0.9, 0.01)
        sums = [ops.asum(fenced(x)), ops.sumsq(fenced(x)), ops.dot(fenced(x), fenced(y))]
        return [added, scaled, less, filled, copied, w, history, np.array(sums)]

    added, scaled, less, filled, copied, w, history, sums = for_any_threads(isa, op)
    assert_close("axpy", added, y + 0.5 * x.astype(np.float64), 2, 5.0)
    np.testing.assert_array_equal(scaled, np.float32(-3) * x)
    np.testing.assert_array_equal(less, x - y)
    np.testing.assert_array_equal(filled, np.full(count, 2.5))
    np.testing.assert_array_equal(copied, x)
    wide = [a.astype(np.float64) for a in (x, y, past)]
    moved = 0.9 * wide[2] + 0.1 * (wide[1] + 0.01 * wide[0])
    assert_close("history", history, moved, 3, 5.0)
    assert_close("w", w, wide[0] - moved, 4, 5.0)
    want = [np.abs(wide[0]).sum(), (wide[0] ** 2).sum(), wide[0] @ wide[1]]
    np.testing.assert_allclose(sums, want, rtol=1e-12, atol=1e-9)


@each_set
def test_the_update_by_hand(isa: str) -> None:
    w, dw, history = (fenced(np.array([v], np.float32)) for v in (1.0, 0.5, 0.25))
    NativeVectors(opened(isa, 1)).sgd_update(w, dw, history, 0.5, 0.5, 0.25)
    want_w, want_history = vectors.sgd_update(
        np.array([1.0]), np.array([0.5]), np.array([0.25]), 0.5, 0.5, 0.25
    )
    assert (w[0], history[0]) == (want_w[0], want_history[0]) == (0.5, 0.5)


@each_set
@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_relu_passes_nan_and_keeps_infinity_out_of_zeros(isa: str, slope: float) -> None:
    x = np.concatenate([normal(70_001), [0.0, -0.0, np.nan, np.inf, -np.inf]]).astype(np.float32)
    dy = normal(x.size, seed=1)

    def op(library: NativeLibrary) -> list[Host]:
        y, dx, place = junk(x.shape), junk(x.shape), fenced(x)
        ops = NativeNeurons(library)
        ops.relu_forward(fenced(x), y, slope)
        ops.relu_forward(place, place, slope)
        ops.relu_backward(fenced(x), fenced(dy), dx, slope)
        return [y, dx, place]

    y, dx, place = for_any_threads(isa, op)
    assert y.tobytes() == place.tobytes()
    want = np.where(x < 0, 0.0 if slope == 0 else np.float32(slope) * x, x)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(dx, neurons.relu_backward(x, dy, np.float32(slope)).astype("f4"))


@each_set
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("first", [0, 2**33 - 1])
def test_dropout_draws_the_contract_s_numbers(isa: str, ratio: float, first: int) -> None:
    shape, draw = (3, 150), Draw(seed=2**40 + 7, stream=0xDEADBEEF, first_sample=first)
    x = normal(*shape)

    def op(library: NativeLibrary) -> list[Host]:
        y, mask, dx = junk(shape), junk(shape, np.uint8), junk(shape)
        ops = NativeNeurons(library)
        ops.dropout_forward(fenced(x), y, mask, ratio, draw)
        ops.dropout_backward(fenced(x), mask, dx, ratio)
        return [y, mask, dx]

    y, mask, dx = for_any_threads(isa, op)
    want = neurons.dropout_mask(shape, ratio, draw.seed, draw.stream, first)
    np.testing.assert_array_equal(mask, want)
    scaled = x * want * np.float32(1.0 if ratio == 1.0 else 1.0 / (1.0 - ratio))
    np.testing.assert_array_equal(y, scaled)
    np.testing.assert_array_equal(dx, scaled)


POOLS = [
    PoolGeometry(1, 1, 1, 1, (1, 1)),
    PoolGeometry(2, 3, 7, 9, (2, 2), (2, 2)),
    PoolGeometry(1, 2, 34, 70, (2, 2), (2, 2)),
    PoolGeometry(1, 2, 9, 67, (2, 2), (2, 2), ceil=False),
    PoolGeometry(2, 2, 13, 75, (3, 3), (2, 2)),
    PoolGeometry(1, 3, 8, 41, (3, 3), (2, 2), (1, 1)),
    PoolGeometry(2, 2, 6, 40, (3, 2), (1, 1), (1, 0)),
    PoolGeometry(1, 2, 10, 11, (4, 5), (3, 3), (2, 1)),
    PoolGeometry(1, 2, 7, 7, (7, 7)),
    PoolGeometry(1, 1, 12, 40, (1, 1), (2, 2)),
]


@each_set
@pytest.mark.parametrize("kind", ["normal", "ties", "nan"])
@pytest.mark.parametrize("geom", POOLS, ids=str)
def test_max_pool(isa: str, geom: PoolGeometry, kind: str) -> None:
    x = normal(*geom.in_shape)
    if kind != "normal":
        x = np.round(x)
    if kind == "nan":
        x[np.random.default_rng(0).random(x.shape) < 0.6] = np.nan
    dy = normal(*geom.out_shape)

    def op(library: NativeLibrary) -> list[Host]:
        y, mask, dx = junk(geom.out_shape), junk(geom.out_shape, np.int32), junk(geom.in_shape)
        ops = NativePool(library)
        ops.max_forward(geom, fenced(x), y, mask)
        ops.max_backward(geom, fenced(dy), mask, dx)
        return [y, mask, dx]

    y, mask, dx = for_any_threads(isa, op)
    want_y, want_mask = pool.max_forward(geom, x)
    np.testing.assert_array_equal(mask, want_mask)
    np.testing.assert_array_equal(y, want_y.astype(np.float32))
    covers = geom.kernel[0] * geom.kernel[1]
    assert_close("dx", dx, pool.max_backward(geom, dy, want_mask), covers, 4.0)


@each_set
@pytest.mark.parametrize("geom", POOLS, ids=str)
def test_ave_pool(isa: str, geom: PoolGeometry) -> None:
    x, dy = normal(*geom.in_shape), normal(*geom.out_shape)

    def op(library: NativeLibrary) -> list[Host]:
        y, dx = junk(geom.out_shape), junk(geom.in_shape)
        NativePool(library).ave_forward(geom, fenced(x), y)
        NativePool(library).ave_backward(geom, fenced(dy), dx)
        return [y, dx]

    y, dx = for_any_threads(isa, op)
    covers = geom.kernel[0] * geom.kernel[1]
    assert_close("y", y, pool.ave_forward(geom, x), covers, 4.0)
    assert_close("dx", dx, pool.ave_backward(geom, dy), covers, 4.0)


@each_set
@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize(
    "geom",
    [LRNGeometry(2, 7, 5, 13, 5), LRNGeometry(1, 2, 9, 9, 7), LRNGeometry(2, 40, 8, 8, 3)],
    ids=str,
)
def test_lrn(isa: str, geom: LRNGeometry, beta: float) -> None:
    shape = (geom.n, geom.c, geom.h, geom.w)
    geom = LRNGeometry(*shape, geom.size, alpha=0.5, beta=beta, k=2.0)
    x, dy = normal(*shape), normal(*shape, seed=1)

    def op(library: NativeLibrary) -> list[Host]:
        scale, y, dx = junk(shape), junk(shape), junk(shape)
        NativeLRN(library).forward(geom, fenced(x), scale, y)
        NativeLRN(library).backward(geom, fenced(x), y, scale, fenced(dy), dx)
        return [scale, y, dx]

    scale, y, dx = for_any_threads(isa, op)
    want_scale, want_y = lrn.forward(geom, x.astype(np.float64))
    assert_close("scale", scale, want_scale, geom.size + 2, float(want_scale.max()))
    # A power of a rounded scale loses a digit or so.
    assert_close("y", y, want_y, geom.size + 2, float(np.abs(want_y).max()), 2.0)
    want_dx = lrn.backward(geom, x.astype(np.float64), dy.astype(np.float64))
    assert_close("dx", dx, want_dx, geom.size + 4, float(np.abs(dy).max()), 2.0)
