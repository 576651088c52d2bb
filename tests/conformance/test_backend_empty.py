"""Ops on arrays of which a dimension is 0: nothing hangs, and sums without terms are 0."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.base import Draw, Epilogue, Function, FunctionKind, Layout
from tests.conformance.device import Device

SIZES = [(1, 1, 0), (4, 5, 0), (33, 70, 0), (0, 4, 4), (4, 0, 4), (0, 4, 0), (4, 0, 0), (0, 0, 0)]
LAYOUTS = [Layout(*sizes) for sizes in itertools.product((0, 2), (0, 3), (0, 1, 5)) if 0 in sizes]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("trans_a", [False, True], ids=["a", "aT"])
@pytest.mark.parametrize("trans_b", [False, True], ids=["b", "bT"])
def test_product_of_no_depth_leaves_beta_c(
    device: Device, sizes: tuple[int, int, int], trans_a: bool, trans_b: bool
) -> None:
    rows, cols, depth = sizes
    a = device.up(np.ones((depth, rows) if trans_a else (rows, depth)))
    b = device.up(np.ones((cols, depth) if trans_b else (depth, cols)))
    for beta in (0.0, 1.0, 0.5):
        c = device.junk((rows, cols)) if beta == 0 else device.up(np.full((rows, cols), 3))
        device.backend.products.gemm(trans_a, trans_b, 2.0, a, b, beta, c)
        want = np.full((rows, cols), 3 * beta, device.dtype)
        np.testing.assert_array_equal(device.down(c, (rows, cols)), want)


def conv_cases() -> list[ConvGeometry]:
    """Three algorithms' worth of geometries without images, channels, filters or pixels."""
    sizes = [(0, 3, 5, 5, 4), (2, 0, 5, 5, 4), (2, 3, 5, 5, 0), (2, 3, 0, 5, 4), (2, 3, 5, 0, 4)]
    sizes += [(0, 64, 8, 8, 64), (2, 0, 8, 8, 64), (2, 64, 8, 8, 0), (0, 3, 8, 8, 64)]
    return [
        ConvGeometry(n, c, h, w, k, (kernel, kernel), (pad, pad))
        for n, c, h, w, k in sizes
        for kernel, pad in ((1, 0), (1, 1), (3, 1))
    ]


@pytest.mark.parametrize("geom", conv_cases(), ids=str)
def test_convolution_of_nothing_leaves_the_bias(device: Device, geom: ConvGeometry) -> None:
    x, weight = device.up(np.ones(geom.in_shape)), device.up(np.ones(geom.weight_shape))
    bias, plan = device.up(np.arange(geom.k) - 1), device.backend.conv.plan(geom)
    for given, relu in ((None, False), (bias, False), (bias, True)):
        y = device.junk(geom.out_shape)
        device.backend.conv.forward(plan, x, weight, Epilogue(given, relu=relu), y, 1)
        want = np.zeros(geom.out_shape, device.dtype)
        if given is not None:
            want += (np.arange(geom.k) - 1)[:, None, None]
        want = np.maximum(want, 0) if relu else want
        np.testing.assert_array_equal(device.down(y, geom.out_shape), want)
    dy, dx = device.up(np.ones(geom.out_shape)), device.junk(geom.in_shape)
    device.backend.conv.backward_data(plan, dy, weight, dx, None)
    np.testing.assert_array_equal(device.down(dx, geom.in_shape), 0)
    dw = device.up(np.full(geom.weight_shape, 5))
    device.backend.conv.backward_weight(plan, x, dy, dw)
    np.testing.assert_array_equal(device.down(dw, geom.weight_shape), 5)


@pytest.mark.parametrize("planes", [(0, 3), (2, 0)], ids=str)
def test_pooling_and_lrn_of_no_planes(device: Device, planes: tuple[int, int]) -> None:
    be, pool, lrn = (
        device.backend,
        PoolGeometry(*planes, 4, 4, (2, 2), (2, 2)),
        LRNGeometry(*planes, 4, 4),
    )
    x, dx, scale = device.up(np.ones(pool.in_shape)), device.junk(pool.in_shape), 0
    y, mask = device.junk(pool.out_shape), device.junk(pool.out_shape, np.int32)
    be.pool.max_forward(pool, x, y, mask)
    be.pool.max_backward(pool, y, mask, dx)
    be.pool.ave_forward(pool, x, y)
    be.pool.ave_backward(pool, y, dx)
    scale, y = device.junk(pool.in_shape), device.junk(pool.in_shape)
    be.lrn.forward(lrn, x, scale, y)
    be.lrn.backward(lrn, x, y, scale, y, dx)
    assert device.down(dx, pool.in_shape).shape == pool.in_shape


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_layouts_of_nothing(device: Device, layout: Layout) -> None:
    be, shape = device.backend, (layout.outer, layout.channels, layout.inner)
    x, y = device.up(np.ones(shape)), device.junk(shape)
    be.softmax.forward(layout, x, y)
    be.softmax.backward(layout, y, x, y)
    bias, sums = device.up(np.ones(layout.channels)), device.up(np.full(layout.channels, 5))
    be.products.bias_forward(layout, bias, y)
    be.products.bias_backward(layout, y, sums)
    np.testing.assert_array_equal(device.down(sums, (layout.channels,)), 5)
    values, pointwise = device.up(np.ones(layout.channels)), be.pointwise
    pointwise.affine(layout, x, values, values, values, True, y)
    pointwise.product_sums(layout, x, y, sums)
    pointwise.prelu_forward(layout, x, values, y)
    pointwise.prelu_backward(layout, x, y, values, y)
    pointwise.prelu_backward_slope(layout, x, y, sums)
    np.testing.assert_array_equal(device.down(sums, (layout.channels,)), 5)
    if not layout.channels:
        return
    label, loss, count = device.up(np.zeros(0)), device.junk((1,)), device.junk((1,))
    be.softmax.loss_forward(layout, y, label, None, None, loss, count)
    be.softmax.loss_backward(layout, y, label, None, 1.0, count, x)
    assert (device.down(loss, (1,)), device.down(count, (1,))) == (0, 1)
    be.softmax.accuracy(layout, y, label, None, 1, loss)
    assert device.down(loss, (1,)) == 0


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)], ids=str)
def test_vectors_of_nothing(device: Device, shape: tuple[int, ...]) -> None:
    be, (a, b, c) = device.backend, (device.up(np.ones(shape)) for _ in range(3))
    be.memory.copy(a, b)
    be.memory.fill(a, 1.0)
    be.vectors.axpy(1.0, a, b)
    be.vectors.scal(2.0, a)
    be.vectors.sub(a, b, c)
    assert (be.vectors.asum(a), be.vectors.sumsq(a), be.vectors.dot(a, b)) == (0, 0, 0)
    be.vectors.sgd_update(a, b, c, 1.0, 1.0, 1.0)
    be.neurons.relu_forward(a, b, 0.0)
    be.neurons.relu_backward(a, b, c, 0.0)
    winner = device.junk(shape, np.int32)
    for kind in FunctionKind:
        be.pointwise.function_forward(Function(kind, 1.0, 1.0, 1.0), a, b)
        be.pointwise.function_backward(Function(kind, 1.0, 1.0, 1.0), a, a, b, c)
    be.pointwise.swish_backward(1.0, a, a, b, c)
    be.pointwise.eltwise_sum([a, b], [1.0, 2.0], True, c)
    be.pointwise.eltwise_product([a, b], c)
    be.pointwise.eltwise_max([a, b], c, winner)
    be.pointwise.eltwise_max_backward(a, winner, 0, c)
    mask = device.junk(shape, np.uint8)
    be.neurons.dropout_forward(a, b, mask, 0.5, Draw(1, 1, 0))
    be.neurons.dropout_backward(b, mask, c, 0.5)
    rows, cols = (*shape, 1)[:2]
    be.memory.copy_2d(a, b, rows, cols, (0, cols), (0, cols))


def test_dropout_of_a_number_without_axes(device: Device) -> None:
    x, y, mask = device.up(np.array(3.0)), device.junk(()), device.junk((), np.uint8)
    device.backend.neurons.dropout_forward(x, y, mask, 0.5, Draw(1, 1, 0))
    assert device.down(y, ()) == 6 * device.down(mask, (), np.uint8)
