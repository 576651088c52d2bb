"""The ops of precision bf16 against the oracle in float64, with the tolerance of bf16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from prototxt_gen.geometry import LRNGeometry, PoolGeometry
from runtime.backend.base import Draw, Epilogue, Function, FunctionKind, Layout
from runtime.backend.cpu.bf16 import round_bf16
from tests.conformance.device import Device, open_device
from tests.conformance.inputs import make
from tests.conformance.test_backend_ops import CONV_CASES, LRN_CASES, POOL_CASES, ConvCase
from tests.oracle import conv, lrn, pool, vectors
from tests.oracle.tolerance import assert_close

Host = npt.NDArray[Any]

# Spacing of bf16 numbers divided by that of float32 numbers.
COARSER = 2.0**16


@pytest.fixture(scope="module")
def rounding() -> Device:
    return open_device("cpu-bf16")


def close(what: str, got: Host, want: Host, length: int, scale: float) -> None:
    """Hold a map to `want` with the tolerance of bf16, and to bf16 numbers."""
    assert_close(what, got, want, length, scale, COARSER)
    np.testing.assert_array_equal(got, round_bf16(got))


@pytest.mark.parametrize("case", CONV_CASES, ids=lambda case: str(case.geom))
def test_convolution(rounding: Device, case: ConvCase) -> None:
    geom, ops = case.geom, rounding.backend.conv
    x, weight, bias, dy, before = rounding.cast(
        make("normal", geom.in_shape),
        make("normal", geom.weight_shape, 1),
        make("normal", (geom.k,)),
        make("normal", geom.out_shape, 2),
        make("normal", geom.weight_shape, 3),
    )
    plan = ops.plan(geom)

    def run() -> list[Host]:
        y, dx = rounding.junk(geom.out_shape), rounding.junk(geom.in_shape)
        dw = rounding.up(before)
        ops.forward(plan, rounding.up(x), rounding.up(weight), Epilogue(bias, True), y, 1)
        ops.backward_data(plan, rounding.up(dy), rounding.up(weight), dx, None)
        ops.backward_weight(plan, rounding.up(x), rounding.up(dy), dw)
        return [y, dx, dw]

    y, dx, dw = rounding.twice(run)
    largest = float(np.abs(weight).max())
    want = np.maximum(conv.forward(geom, x, weight) + bias.astype(float)[:, None, None], 0)
    close("y", y, want, weight[0].size + 1, float(np.abs(x).max()) * largest)
    length = geom.k // geom.group * geom.kernel[0] * geom.kernel[1]
    scale = float(np.abs(dy).max())
    close("dx", dx, conv.backward_data(geom, dy, weight), length, scale * largest)
    want = before + conv.backward_weight(geom, x, dy)
    scale = max(scale * float(np.abs(x).max()), float(np.abs(before).max()))
    assert_close("dw", dw, want, geom.n * geom.p * geom.q + 1, scale, COARSER)


@pytest.mark.parametrize("factors", [(1.0, 0.0), (1.0, 1.0), (-0.5, 0.25)])
@pytest.mark.parametrize("trans", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("mnk", [(1, 1, 1), (3, 5, 7), (1, 40, 30), (33, 20, 64)])
def test_gemm(
    rounding: Device,
    mnk: tuple[int, int, int],
    trans: tuple[bool, bool],
    factors: tuple[float, float],
) -> None:
    (m, n, k), (alpha, beta) = mnk, factors
    a, b, c = rounding.cast(
        make("normal", (k, m) if trans[0] else (m, k)),
        make("normal", (n, k) if trans[1] else (k, n), 1),
        make("normal", (m, n), 2),
    )

    def run() -> list[Host]:
        out = rounding.up(c) if beta else rounding.junk((m, n))
        rounding.backend.products.gemm(*trans, alpha, a, b, beta, out)
        return [out]

    want = vectors.gemm(*trans, alpha, a.astype(float), b.astype(float), beta, c.astype(float))
    scale = float(max(np.abs(a).max() * np.abs(b).max(), np.abs(c).max()))
    assert_close("c", rounding.twice(run)[0], want, k + 1, scale, COARSER)


@pytest.mark.parametrize("geom", POOL_CASES, ids=str)
def test_pooling(rounding: Device, geom: PoolGeometry) -> None:
    ops = rounding.backend.pool
    x, dy = rounding.cast(make("distinct", geom.in_shape), make("normal", geom.out_shape, 1))
    x, dy = round_bf16(x), round_bf16(dy)
    y, mask, dx = (
        rounding.junk(geom.out_shape),
        rounding.junk(geom.out_shape, np.int32),
        rounding.junk(geom.in_shape),
    )
    length, want = geom.kernel[0] * geom.kernel[1], pool.max_forward(geom, x)
    ops.max_forward(geom, x, y, mask)
    np.testing.assert_array_equal(y, want[0])
    np.testing.assert_array_equal(mask, want[1])
    ops.max_backward(geom, dy, mask, dx)
    scale = float(np.abs(dy).max())
    close("dx", dx, pool.max_backward(geom, dy, want[1]), length, scale)
    ops.ave_forward(geom, x, y)
    close("mean", y, pool.ave_forward(geom, x), length, float(np.abs(x).max()))
    ops.ave_backward(geom, dy, dx)
    close("dx of the mean", dx, pool.ave_backward(geom, dy), length, scale)


@pytest.mark.parametrize("geom", LRN_CASES, ids=str)
def test_lrn(rounding: Device, geom: LRNGeometry) -> None:
    shape = (geom.n, geom.c, geom.h, geom.w)
    x, dy = rounding.cast(make("normal", shape), make("normal", shape, 1))
    scale, y, dx = (rounding.junk(shape) for _ in range(3))
    rounding.backend.lrn.forward(geom, x, scale, y)
    rounding.backend.lrn.backward(geom, x, y, scale, dy, dx)
    want_scale, want_y = lrn.forward(geom, x)
    size = float(np.abs(x).max())
    # The scale is not a map: it keeps the precision of float32.
    assert_close("scale", scale, want_scale, geom.size + 2, max(geom.k, geom.alpha * size**2))
    close("y", y, want_y, geom.size + 2, size)
    bound = float(np.abs(dy).max()) * max(1.0, geom.alpha * size**2)
    close("dx", dx, lrn.backward(geom, x, dy), geom.size + 2, bound)


def pointwise_cases(ops: Any, a: Host, b: Host, out: Host) -> dict[str, Callable[[], Host]]:
    """For each op a call that writes `out` and returns the exact result of the same operands."""
    layout, slope = Layout(2, 5, 12), np.linspace(0.3, 0.7, 5, dtype=np.float32)
    x, y, s = a.astype(float), b.astype(float), slope.astype(float)[:, None]
    winner = np.zeros(a.shape, np.int32)

    def case(call: Callable[[], object], want: Host) -> Callable[[], Host]:
        def run() -> Host:
            call()
            return want

        return run

    gate = 1 / (1 + np.exp(-x))
    sigmoid, gates = Function(FunctionKind.SIGMOID, 1.0), gate.astype(np.float32)
    return {
        "function_forward": case(lambda: ops.function_forward(sigmoid, a, out), gate),
        "function_backward": case(
            lambda: ops.function_backward(sigmoid, a, gates, b, out), y * gate * (1 - gate)
        ),
        "swish_backward": case(
            lambda: ops.swish_backward(0.5, gates, a, b, out),
            y * (0.5 * x + gate * (1 - 0.5 * x)),
        ),
        "affine": case(
            lambda: ops.affine(layout, a, slope, slope, slope, False, out), x * s - s * s + s
        ),
        "eltwise_sum": case(
            lambda: ops.eltwise_sum([a, b], [0.7, 1.1], False, out), 0.7 * x + 1.1 * y
        ),
        "eltwise_product": case(lambda: ops.eltwise_product([a, b], out), x * y),
        "eltwise_max": case(lambda: ops.eltwise_max([a, b], out, winner), np.maximum(x, y)),
        "eltwise_max_backward": case(lambda: ops.eltwise_max_backward(a, winner, 0, out), x),
        "prelu_forward": case(
            lambda: ops.prelu_forward(layout, a, slope, out), np.where(x > 0, x, s * x)
        ),
        "prelu_backward": case(
            lambda: ops.prelu_backward(layout, a, b, slope, out), np.where(x > 0, y, s * y)
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "function_forward",
        "function_backward",
        "swish_backward",
        "affine",
        "eltwise_sum",
        "eltwise_product",
        "eltwise_max",
        "eltwise_max_backward",
        "prelu_forward",
        "prelu_backward",
    ],
)
def test_pointwise(rounding: Device, name: str) -> None:
    a, b = rounding.cast(make("normal", (2, 5, 12)), make("normal", (2, 5, 12), 1))
    out = rounding.junk((2, 5, 12))
    want = pointwise_cases(rounding.backend.pointwise, a, b, out)[name]()
    close(name, out, want, 3, float(np.abs(a).max() * max(1.0, np.abs(b).max())))


def test_neurons(rounding: Device) -> None:
    ops, draw = rounding.backend.neurons, Draw(1, 2, 3)
    x, dy = rounding.cast(make("normal", (3, 50)), make("normal", (3, 50), 1))
    y, dx, mask = rounding.junk((3, 50)), rounding.junk((3, 50)), np.zeros((3, 50), np.uint8)
    ops.relu_forward(x, y, 0.3)
    close("relu", y, np.where(x > 0, x, 0.3 * x.astype(float)), 1, float(np.abs(x).max()))
    ops.relu_backward(x, dy, dx, 0.3)
    close("dx", dx, np.where(x > 0, dy, 0.3 * dy.astype(float)), 1, float(np.abs(dy).max()))
    ops.dropout_forward(x, y, mask, 0.3, draw)
    close("dropout", y, x.astype(float) * mask / 0.7, 2, float(np.abs(x).max()))
    ops.dropout_backward(dy, mask, dx, 0.3)
    close("dx of dropout", dx, dy.astype(float) * mask / 0.7, 2, float(np.abs(dy).max()))
