"""Vectors, products, neurons, soft-max and updates of every backend against the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runtime.backend.base import Draw, Layout
from tests.conformance.device import Device
from tests.conformance.inputs import labels, make
from tests.oracle import neurons, softmax, vectors
from tests.oracle.tolerance import assert_close, tolerance

SIZES = [1, 7, 1000, 70001]
LAYOUTS = [Layout(1, 1, 1), Layout(4, 10, 1), Layout(2, 5, 12), Layout(3, 1, 7), Layout(1, 33, 5)]


@pytest.mark.parametrize("count", SIZES)
def test_axpy_scal_sub_fill_copy(device: Device, count: int) -> None:
    x, y = device.cast(make("normal", (count,)), make("normal", (count,), 1))
    be, scale = device.backend, float(np.abs(x).max() + np.abs(y).max())
    for alpha in (1.0, -0.3, 0.0):
        out = device.up(y)
        be.vectors.axpy(alpha, device.up(x), out)
        want = y + alpha * x.astype(np.float64)
        assert_close("axpy", device.down(out, (count,)), want, 2, scale)
        out = device.up(x)
        be.vectors.scal(alpha, out)
        assert_close("scal", device.down(out, (count,)), alpha * x.astype(np.float64), 1, scale)
    out = device.junk((count,))
    be.vectors.sub(device.up(x), device.up(y), out)
    np.testing.assert_array_equal(device.down(out, (count,)), x - y)
    be.memory.fill(out, 2.5)
    np.testing.assert_array_equal(device.down(out, (count,)), 2.5)
    be.memory.copy(device.up(x), out)
    np.testing.assert_array_equal(device.down(out, (count,)), x)


@pytest.mark.parametrize("count", SIZES)
def test_sums(device: Device, count: int) -> None:
    x, y = device.cast(make("normal", (count,)), make("normal", (count,), 1))
    be, a, b = device.backend, device.up(x), device.up(y)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    for name, op, want in (
        ("asum", lambda: be.vectors.asum(a), vectors.asum(x64)),
        ("sumsq", lambda: be.vectors.sumsq(a), vectors.dot(x64, x64)),
        ("dot", lambda: be.vectors.dot(a, b), vectors.dot(x64, y64)),
    ):
        got = op()
        # Partial sums are as large as the sum of the terms' sizes, however many they are.
        size = max(vectors.asum(x64), vectors.dot(np.abs(x64), np.abs(y64)), want)
        allowed = tolerance(device.dtype, 1, size, 4.0)
        assert math.isclose(got, want, rel_tol=0, abs_tol=allowed), name
        assert got == op(), f"{name}: a second run gave other bits"


def test_copy_2d_moves_runs_and_nothing_else(device: Device) -> None:
    (src,) = device.cast(np.arange(40.0))
    dst = device.up(np.full(50, -1.0))
    device.backend.memory.copy_2d(device.up(src), dst, 4, 3, (2, 10), (5, 12))
    want = np.full(50, -1.0)
    for row in range(4):
        want[5 + 12 * row : 8 + 12 * row] = src[2 + 10 * row : 5 + 10 * row]
    np.testing.assert_array_equal(device.down(dst, (50,)), want)


def test_view_is_no_copy(device: Device) -> None:
    flat = device.up(np.zeros(24))
    device.backend.memory.fill(device.backend.memory.view(flat, 4, (2, 3)), 1.0)
    want = np.zeros(24)
    want[4:10] = 1.0
    np.testing.assert_array_equal(device.down(flat, (24,)), want)


@pytest.mark.parametrize("alpha_beta", [(1.0, 0.0), (1.0, 1.0), (-0.5, 0.25)])
@pytest.mark.parametrize("trans", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("mnk", [(1, 1, 1), (3, 5, 7), (1, 40, 30), (17, 1, 9), (33, 20, 64)])
def test_gemm(
    device: Device,
    mnk: tuple[int, int, int],
    trans: tuple[bool, bool],
    alpha_beta: tuple[float, float],
) -> None:
    (m, n, k), (alpha, beta) = mnk, alpha_beta
    a, b, c = device.cast(
        make("normal", (k, m) if trans[0] else (m, k)),
        make("normal", (n, k) if trans[1] else (k, n), 1),
        make("normal", (m, n), 2),
    )
    want = vectors.gemm(*trans, alpha, a.astype(float), b.astype(float), beta, c.astype(float))

    def run() -> list:
        out = device.up(c) if beta else device.junk((m, n))
        device.backend.products.gemm(*trans, alpha, device.up(a), device.up(b), beta, out)
        return [device.down(out, (m, n))]

    scale = float(max(np.abs(a).max() * np.abs(b).max(), np.abs(c).max()))
    assert_close("c", device.twice(run)[0], want, k + 1, scale)


def test_gemm_large_enough_to_be_cut(device: Device) -> None:
    """Rows and columns of the product differ by construction: c[i, j] = i + 1000 j."""
    m, n, k = 300, 270, 40
    a, b = np.zeros((m, k)), np.zeros((k, n))
    a[:, 0], b[0] = np.arange(m), 1.0
    a[:, 1], b[1] = 1000.0, np.arange(n)
    out = device.up(np.ones((m, n)))
    device.backend.products.gemm(False, False, 1.0, device.up(a), device.up(b), 1.0, out)
    want = 1.0 + np.arange(m)[:, None] + 1000.0 * np.arange(n)
    np.testing.assert_array_equal(device.down(out, (m, n)), want)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_bias(device: Device, layout: Layout) -> None:
    shape = (layout.outer, layout.channels, layout.inner)
    y, bias, before = device.cast(
        make("normal", shape),
        make("normal", (layout.channels,), 1),
        make("normal", (layout.channels,), 2),
    )
    out = device.up(y)
    device.backend.products.bias_forward(layout, device.up(bias), out)
    np.testing.assert_array_equal(device.down(out, shape), y + bias[:, None])

    def run() -> list:
        db = device.up(before)
        device.backend.products.bias_backward(layout, device.up(y), db)
        return [device.down(db, before.shape)]

    want = before + y.astype(np.float64).sum(axis=(0, 2))
    size = float(max(np.abs(y).max(), np.abs(before).max()))
    assert_close("db", device.twice(run)[0], want, layout.outer * layout.inner + 1, size)


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("in_place", [False, True])
def test_relu(device: Device, slope: float, in_place: bool) -> None:
    x, dy = device.cast(make("ties", (3, 50)), make("normal", (3, 50), 1))
    x[0, 0] = np.nan
    data = device.up(x)
    out = data if in_place else device.junk(x.shape)
    device.backend.neurons.relu_forward(data, out, slope)
    y = device.down(out, x.shape)
    assert_close("y", y, neurons.relu_forward(x, slope), 1, 2.0)
    top = device.up(dy)
    bottom = top if in_place else device.junk(x.shape)
    # In place the layer has only the output left, which has the input's sign.
    device.backend.neurons.relu_backward(out, top, bottom, slope)
    assert_close("dx", device.down(bottom, x.shape), neurons.relu_backward(x, dy, slope), 1, 5.0)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 10), (2, 3, 5, 5)])
def test_dropout(device: Device, shape: tuple[int, ...], ratio: float) -> None:
    x, dy = device.cast(make("normal", shape), make("normal", shape, 1))
    draw = Draw(seed=(5 << 32) + 3, stream=0xDEADBEEF, first_sample=(7 << 32) - 1)
    want_mask = neurons.dropout_mask(shape, ratio, draw.seed, draw.stream, draw.first_sample)
    scale = 1.0 / (1.0 - ratio) if ratio < 1.0 else 0.0

    def run() -> list:
        mask, y = device.junk(shape, np.uint8), device.up(x)
        device.backend.neurons.dropout_forward(y, y, mask, ratio, draw)
        dx = device.up(dy)
        device.backend.neurons.dropout_backward(dx, mask, dx, ratio)
        return [device.down(mask, shape, np.uint8), device.down(y, shape), device.down(dx, shape)]

    mask, y, dx = device.twice(run)
    np.testing.assert_array_equal(mask, want_mask)
    assert_close("y", y, x.astype(np.float64) * want_mask * scale, 2, 4.0 * max(1.0, scale))
    assert_close("dx", dx, dy.astype(np.float64) * want_mask * scale, 2, 4.0 * max(1.0, scale))


def test_dropout_keeps_a_number_equal_to_the_ratio(device: Device) -> None:
    (word, *_) = neurons.philox((0, 5, 0, 2), (1, 0))
    ratio, mask, x = (word >> 8) / 2**24, device.junk((1, 1), np.uint8), device.up([[1.0]])
    device.backend.neurons.dropout_forward(
        x, x, mask, ratio, Draw(seed=1, stream=2, first_sample=5)
    )
    assert device.down(mask, (1, 1), np.uint8)[0, 0] == 1


def test_dropout_does_not_depend_on_how_a_batch_is_split(device: Device) -> None:
    whole, half = device.junk((6, 20), np.uint8), device.junk((3, 20), np.uint8)
    ones = np.ones((6, 20))
    device.backend.neurons.dropout_forward(
        device.up(ones), device.junk((6, 20)), whole, 0.5, Draw(1, 2, 40)
    )
    device.backend.neurons.dropout_forward(
        device.up(ones[:3]), device.junk((3, 20)), half, 0.5, Draw(1, 2, 43)
    )
    tail = device.down(half, (3, 20), np.uint8)
    np.testing.assert_array_equal(device.down(whole, (6, 20), np.uint8)[3:], tail)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("in_place", [False, True])
def test_softmax(device: Device, layout: Layout, in_place: bool) -> None:
    shape = (layout.outer, layout.channels, layout.inner)
    x, dy = device.cast(30.0 * make("normal", shape), make("normal", shape, 1))
    data = device.up(x)
    out = data if in_place else device.junk(shape)
    device.backend.softmax.forward(layout, data, out)
    y = device.down(out, shape)
    # exp turns an absolute rounding error of the largest score into a relative one.
    assert_close("y", y, softmax.forward(x.astype(np.float64)), layout.channels, 1.0, 100.0)
    top = device.up(dy)
    bottom = top if in_place else device.junk(shape)
    device.backend.softmax.backward(layout, out, top, bottom)
    want = softmax.backward(y.astype(np.float64), dy.astype(np.float64))
    assert_close("dx", device.down(bottom, shape), want, layout.channels + 2, 4.0)


@pytest.mark.parametrize("ignore", [None, -1, 0, 255])
@pytest.mark.parametrize("normalizer", [None, 3.0])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_softmax_loss(
    device: Device, layout: Layout, normalizer: float | None, ignore: int | None
) -> None:
    shape = (layout.outer, layout.channels, layout.inner)
    (prob,) = device.cast(softmax.forward(5.0 * make("normal", shape)))
    label = labels((layout.outer, layout.inner), layout.channels, ignore)
    want, divisor = softmax.loss_forward(prob.astype(np.float64), label, ignore, normalizer)

    def run() -> list:
        loss, stats, dx = device.junk((1,)), device.junk((1,)), device.junk(shape)
        names = device.up(label.reshape(-1))
        device.backend.softmax.loss_forward(
            layout, device.up(prob), names, ignore, normalizer, loss, stats
        )
        device.backend.softmax.loss_backward(layout, device.up(prob), names, ignore, 0.7, stats, dx)
        return [device.down(loss, (1,)), device.down(stats, (1,)), device.down(dx, shape)]

    loss, stats, dx = device.twice(run)
    assert stats[0] == divisor
    assert_close("loss", loss, [want], layout.outer * layout.inner, 20.0)
    want_dx = softmax.loss_backward(prob.astype(np.float64), label, ignore, 0.7, divisor)
    assert_close("dx", dx, want_dx, 3, 1.0)


def test_softmax_loss_of_an_impossible_label_is_flt_min(device: Device) -> None:
    loss, stats = device.junk((1,)), device.junk((1,))
    prob, label = device.up([[[1.0], [0.0]]]), device.up([1.0])
    device.backend.softmax.loss_forward(Layout(1, 2, 1), prob, label, None, None, loss, stats)
    assert float(device.down(loss, (1,))[0]) == pytest.approx(87.3365, abs=1e-4)


@pytest.mark.parametrize("top_k", [1, 2, 9, 10])
@pytest.mark.parametrize("kind", ["distinct", "ties", "nan"])
@pytest.mark.parametrize("ignore", [None, 4])
def test_accuracy(device: Device, kind: str, top_k: int, ignore: int | None) -> None:
    layout = Layout(6, 10, 4)
    shape = (layout.outer, layout.channels, layout.inner)
    (x,) = device.cast(make(kind, shape))
    label = labels((layout.outer, layout.inner), layout.channels, ignore)
    out = device.junk((1,))
    device.backend.softmax.accuracy(
        layout, device.up(x), device.up(label.reshape(-1)), ignore, top_k, out
    )
    want = softmax.accuracy(x, label, ignore, top_k)
    assert_close("share", device.down(out, (1,)), [want], 1, 1.0)


def test_accuracy_of_ten_equal_scores(device: Device) -> None:
    out, layout = device.junk((1,)), Layout(1, 10, 1)
    for top_k, want in ((1, 0.0), (9, 0.0), (10, 1.0)):
        device.backend.softmax.accuracy(
            layout, device.up(np.ones((1, 10, 1))), device.up([3.0]), None, top_k, out
        )
        assert device.down(out, (1,))[0] == want


def test_accuracy_of_ignored_labels_only_is_zero(device: Device) -> None:
    out = device.junk((1,))
    device.backend.softmax.accuracy(
        Layout(1, 3, 1), device.up(np.ones((1, 3, 1))), device.up([2.0]), 2, 1, out
    )
    assert device.down(out, (1,))[0] == 0.0


@pytest.mark.parametrize("count", SIZES[1:])
def test_sgd_update(device: Device, count: int) -> None:
    w, dw, history = device.cast(*(make("normal", (count,), seed) for seed in range(3)))
    arrays = [a[:1000] for a in (w, dw, history)]
    want_w, want_history = vectors.sgd_update(
        *(a.astype(np.float64) for a in arrays), 0.1, 0.9, 0.0005
    )

    def run() -> list:
        weight, past = device.up(w), device.up(history)
        device.backend.vectors.sgd_update(weight, device.up(dw), past, 0.1, 0.9, 0.0005)
        return [device.down(weight, (count,)), device.down(past, (count,))]

    got_w, got_history = device.twice(run)
    size = float(max(np.abs(a).max() for a in (w, dw, history)))
    assert_close("history", got_history[:1000], want_history, 3, size)
    assert_close("w", got_w[:1000], want_w, 4, size)
    assert np.isfinite(got_w).all()
