"""Convolution, pooling and LRN of every backend against the oracle, as one table of cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.base import Epilogue
from tests.conformance.device import Device
from tests.conformance.inputs import make
from tests.oracle import conv, lrn, pool
from tests.oracle.tolerance import assert_close

# Partial sums of n terms grow with the root of n as well, and in float64 the oracle rounds too.
PLAIN = 4.0
# F(4x4,3x3) evaluates polynomials at points such as 0, 1, -1, 2, -2: its transforms have entries up
# to 8, which enlarge rounding errors about tenfold.
WINOGRAD = 10.0


@dataclass(frozen=True)
class ConvCase:
    """A geometry, and the tolerance factor of a backend that may choose its algorithm."""

    geom: ConvGeometry
    factor: float = PLAIN


CONV_CASES = [
    ConvCase(ConvGeometry(1, 1, 1, 1, 1, (1, 1))),
    ConvCase(ConvGeometry(2, 3, 5, 4, 7, (1, 1))),
    ConvCase(ConvGeometry(1, 1, 3, 3, 1, (3, 3), (1, 1)), WINOGRAD),
    ConvCase(ConvGeometry(2, 3, 9, 7, 4, (3, 3), (1, 1)), WINOGRAD),
    ConvCase(ConvGeometry(3, 5, 4, 4, 6, (3, 3)), WINOGRAD),
    ConvCase(ConvGeometry(1, 16, 13, 17, 24, (3, 3), (1, 1)), WINOGRAD),
    ConvCase(ConvGeometry(2, 32, 8, 8, 33, (3, 3), (1, 1)), WINOGRAD),
    ConvCase(ConvGeometry(5, 8, 4, 4, 8, (3, 3), (1, 1)), WINOGRAD),
    ConvCase(ConvGeometry(1, 3, 6, 6, 2, (3, 3), (2, 2)), WINOGRAD),
    ConvCase(ConvGeometry(1, 4, 6, 5, 2, (3, 3), (0, 3)), WINOGRAD),
    ConvCase(ConvGeometry(2, 3, 11, 11, 4, (5, 5), (2, 2), (2, 2))),
    ConvCase(ConvGeometry(1, 3, 12, 10, 2, (4, 4), (1, 1), (4, 4))),
    ConvCase(ConvGeometry(2, 4, 9, 9, 4, (3, 3), (2, 2), (1, 1), (2, 2))),
    ConvCase(ConvGeometry(2, 6, 7, 7, 4, (3, 3), (1, 1), (1, 1), (1, 1), 2)),
    ConvCase(ConvGeometry(2, 4, 7, 6, 8, (3, 3), (1, 1), (2, 1), (1, 1), 4)),
    ConvCase(ConvGeometry(2, 4, 8, 9, 6, (2, 3), (2, 1), (2, 3), (1, 2), 2)),
    ConvCase(ConvGeometry(3, 6, 5, 5, 4, (1, 1), (0, 0), (2, 2))),
    ConvCase(ConvGeometry(2, 3, 6, 6, 4, (1, 1), (1, 1))),
    ConvCase(ConvGeometry(2, 5, 7, 7, 9, (7, 7))),
    # Large enough to be cut into pieces: by rows, by images, and each piece's product in bands.
    ConvCase(ConvGeometry(5, 64, 30, 30, 2, (3, 3), (1, 1))),
    ConvCase(ConvGeometry(9, 64, 20, 20, 2, (3, 3), (1, 1), (2, 2))),
    ConvCase(ConvGeometry(1, 32, 36, 36, 8, (3, 3), (1, 1))),
    ConvCase(ConvGeometry(5, 16, 12, 12, 16, (3, 3), (1, 1)), WINOGRAD),
]


def _conv_ids(case: ConvCase) -> str:
    return str(case.geom)


@pytest.mark.parametrize("case", CONV_CASES, ids=_conv_ids)
def test_conv_forward(device: Device, case: ConvCase) -> None:
    geom = case.geom
    x, weight, bias = device.cast(
        make("normal", geom.in_shape),
        make("normal", geom.weight_shape, 1),
        make("normal", (geom.k,)),
    )
    plain = conv.forward(geom, x, weight)
    length, scale = weight[0].size + 1, float(np.abs(x).max() * np.abs(weight).max())
    plan = device.backend.conv.plan(geom)
    for given, version, relu in ((None, None, False), (bias, 1, False), (bias, 1, True)):

        def run(given: object = given, version: int | None = version, relu: bool = relu) -> list:
            y = device.junk(geom.out_shape)
            device.backend.conv.forward(
                plan,
                device.up(x),
                device.up(weight),
                Epilogue(None if given is None else device.up(bias), relu=relu),
                y,
                version,
            )
            return [device.down(y, geom.out_shape)]

        want = plain if given is None else plain + bias.astype(np.float64)[:, None, None]
        want = np.maximum(want, 0.0) if relu else want
        assert_close("y", device.twice(run)[0], want, length, scale, case.factor)


@pytest.mark.parametrize("case", CONV_CASES, ids=_conv_ids)
def test_conv_backward_data(device: Device, case: ConvCase) -> None:
    geom = case.geom
    dy, weight = device.cast(make("normal", geom.out_shape), make("normal", geom.weight_shape, 1))
    plan = device.backend.conv.plan(geom)

    def run() -> list:
        dx = device.junk(geom.in_shape)
        device.backend.conv.backward_data(plan, device.up(dy), device.up(weight), dx, None)
        return [device.down(dx, geom.in_shape)]

    length = geom.k // geom.group * geom.kernel[0] * geom.kernel[1]
    scale = float(np.abs(dy).max() * np.abs(weight).max())
    want = conv.backward_data(geom, dy, weight)
    assert_close("dx", device.twice(run)[0], want, length, scale, case.factor)


@pytest.mark.parametrize("case", CONV_CASES, ids=_conv_ids)
def test_conv_backward_weight_accumulates(device: Device, case: ConvCase) -> None:
    geom = case.geom
    x, dy, before = device.cast(
        make("normal", geom.in_shape),
        make("normal", geom.out_shape, 1),
        make("normal", geom.weight_shape, 2),
    )
    plan = device.backend.conv.plan(geom)

    def run() -> list:
        dw = device.up(before)
        device.backend.conv.backward_weight(plan, device.up(x), device.up(dy), dw)
        return [device.down(dw, geom.weight_shape)]

    length = geom.n * geom.p * geom.q + 1
    scale = float(max(np.abs(x).max() * np.abs(dy).max(), np.abs(before).max()))
    want = before + conv.backward_weight(geom, x, dy)
    assert_close("dw", device.twice(run)[0], want, length, scale, case.factor)


def test_conv_sees_new_weights_when_the_version_changes(device: Device) -> None:
    """A backend keeps transformed filters for one version, and for None never."""
    geom = ConvGeometry(2, 16, 12, 12, 16, (3, 3), (1, 1))
    plan = device.backend.conv.plan(geom)
    x, weight = device.cast(make("normal", geom.in_shape), make("normal", geom.weight_shape, 1))

    def run(scale: float, version: int | None) -> list[np.ndarray]:
        y, dx = device.junk(geom.out_shape), device.junk(geom.in_shape)
        scaled = device.up(weight * self_scale(scale))
        device.backend.conv.forward(plan, device.up(x), scaled, Epilogue(), y, version)
        device.backend.conv.backward_data(plan, y, scaled, dx, version)
        return [device.down(y, geom.out_shape), device.down(dx, geom.in_shape)]

    def self_scale(scale: float) -> np.ndarray:
        return np.asarray(scale, device.dtype)

    one, two = run(1.0, 1), run(2.0, 2)
    np.testing.assert_array_equal(two[0], 2 * one[0])
    np.testing.assert_array_equal(two[1], 4 * one[1])
    for version in (None, 3):
        unknown, again = run(1.0, version), run(2.0, None)
        np.testing.assert_array_equal(unknown[0], one[0])
        np.testing.assert_array_equal(again[1], two[1])


POOL_CASES = [
    PoolGeometry(1, 1, 1, 1, (1, 1)),
    PoolGeometry(2, 3, 6, 8, (2, 2), (2, 2)),
    PoolGeometry(2, 3, 7, 5, (2, 2), (2, 2)),
    PoolGeometry(2, 3, 7, 5, (2, 2), (2, 2), ceil=False),
    PoolGeometry(1, 2, 7, 7, (3, 3), (2, 2)),
    PoolGeometry(1, 2, 6, 6, (3, 3), (1, 1), (1, 1)),
    PoolGeometry(1, 2, 6, 7, (3, 2), (2, 1), (2, 1)),
    PoolGeometry(1, 2, 9, 9, (2, 2), (3, 3)),
    PoolGeometry(2, 2, 5, 4, (5, 4)),
    PoolGeometry(1, 1, 3, 3, (2, 2), (2, 2), (1, 1)),
    PoolGeometry(1, 1, 3, 2, (3, 9), (1, 1), (2, 4)),
    PoolGeometry(3, 5, 20, 20, (17, 16), (2, 2), (3, 3)),
]


@pytest.mark.parametrize("kind", ["distinct", "ties", "nan"])
@pytest.mark.parametrize("geom", POOL_CASES, ids=str)
def test_max_pool(device: Device, geom: PoolGeometry, kind: str) -> None:
    x, dy = device.cast(make(kind, geom.in_shape), make("normal", geom.out_shape, 1))
    want_y, want_mask = pool.max_forward(geom, x)

    def run() -> list:
        y, mask = device.junk(geom.out_shape), device.junk(geom.out_shape, np.int32)
        device.backend.pool.max_forward(geom, device.up(x), y, mask)
        dx = device.junk(geom.in_shape)
        device.backend.pool.max_backward(geom, device.up(dy), mask, dx)
        return [
            device.down(y, geom.out_shape),
            device.down(mask, geom.out_shape, np.int32),
            device.down(dx, geom.in_shape),
        ]

    y, mask, dx = device.twice(run)
    np.testing.assert_array_equal(mask, want_mask)
    np.testing.assert_array_equal(y, want_y.astype(device.dtype))
    want = pool.max_backward(geom, dy, want_mask)
    assert_close("dx", dx, want, geom.kernel[0] * geom.kernel[1], float(np.abs(dy).max()))


@pytest.mark.parametrize("geom", POOL_CASES, ids=str)
def test_ave_pool(device: Device, geom: PoolGeometry) -> None:
    x, dy = device.cast(make("normal", geom.in_shape), make("normal", geom.out_shape, 1))

    def run() -> list:
        y, dx = device.junk(geom.out_shape), device.junk(geom.in_shape)
        device.backend.pool.ave_forward(geom, device.up(x), y)
        device.backend.pool.ave_backward(geom, device.up(dy), dx)
        return [device.down(y, geom.out_shape), device.down(dx, geom.in_shape)]

    y, dx = device.twice(run)
    length = geom.kernel[0] * geom.kernel[1]
    assert_close("y", y, pool.ave_forward(geom, x), length, float(np.abs(x).max()))
    assert_close("dx", dx, pool.ave_backward(geom, dy), length, float(np.abs(dy).max()))


LRN_CASES = [
    LRNGeometry(2, 7, 3, 4, 5, 1e-4, 0.75, 2.0),
    LRNGeometry(1, 3, 5, 5, 5, 1.0, 0.75, 1.0),
    LRNGeometry(2, 1, 4, 4, 3, 0.5, 0.75, 1.0),
    LRNGeometry(1, 12, 2, 2, 9, 2.0, 0.5, 1.5),
    LRNGeometry(1, 4, 3, 3, 1, 1.0, 1.0, 1.0),
]


@pytest.mark.parametrize("geom", LRN_CASES, ids=str)
def test_lrn(device: Device, geom: LRNGeometry) -> None:
    shape = (geom.n, geom.c, geom.h, geom.w)
    x, dy = device.cast(make("normal", shape), make("normal", shape, 1))

    def run() -> list:
        scale, y, dx = device.junk(shape), device.junk(shape), device.junk(shape)
        data, top = device.up(x), device.up(dy)
        device.backend.lrn.forward(geom, data, scale, y)
        device.backend.lrn.backward(geom, data, y, scale, top, dx)
        return [device.down(a, shape) for a in (scale, y, dx)]

    scale, y, dx = device.twice(run)
    want_scale, want_y = lrn.forward(geom, x)
    size = float(np.abs(x).max())
    assert_close("scale", scale, want_scale, geom.size + 2, max(geom.k, geom.alpha * size**2))
    # A power of a rounded scale loses a digit or so: factor 4.
    assert_close("y", y, want_y, geom.size + 2, size, 4.0)
    want_dx = lrn.backward(geom, x, dy)
    bound = float(np.abs(dy).max()) * max(1.0, geom.alpha * size**2)
    assert_close("dx", dx, want_dx, geom.size + 2, bound, 4.0)
