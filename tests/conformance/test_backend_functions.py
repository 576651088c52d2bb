"""Functions of one number of every backend against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runtime.backend.base import Function, FunctionKind
from tests.conformance.device import Device

Map = Callable[..., Any]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


# Function, range of x, value, slope.
CASES: list[tuple[Function, tuple[float, float], Map, Map]] = [
    (Function(FunctionKind.ABS), (-3, 3), np.abs, np.sign),
    (
        Function(FunctionKind.CLIP, -1.0, 0.5),
        (-3, 3),
        lambda x: np.clip(x, -1, 0.5),
        lambda x: (x >= -1) & (x <= 0.5),
    ),
    (Function(FunctionKind.THRESHOLD, 0.25), (-3, 3), lambda x: x > 0.25, lambda x: 0 * x),
    (
        Function(FunctionKind.SIGMOID, 1.5),
        (-60, 60),
        lambda x: sigmoid(1.5 * x),
        lambda x: 1.5 * sigmoid(1.5 * x) * sigmoid(-1.5 * x),
    ),
    (Function(FunctionKind.TANH), (-12, 12), np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    (Function(FunctionKind.TANH), (-1e-3, 1e-3), np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    (
        Function(FunctionKind.ELU, 0.5),
        (-20, 20),
        lambda x: np.where(x > 0, x, 0.5 * np.expm1(x)),
        lambda x: np.where(x > 0, 1, 0.5 * np.exp(x)),
    ),
    (
        Function(FunctionKind.EXP, 0.5, 2.0),
        (-150, 150),
        lambda x: 2 * np.exp(0.5 * x),
        lambda x: np.exp(0.5 * x),
    ),
    (
        Function(FunctionKind.LOG, 0.5, 2.0, 1.25),
        (-3.9, 100),
        lambda x: 1.25 * np.log(0.5 * x + 2),
        lambda x: 1.25 * 0.5 / (0.5 * x + 2),
    ),
    (Function(FunctionKind.BNLL), (-40, 40), lambda x: np.logaddexp(0, x), sigmoid),
    *(
        (
            Function(FunctionKind.POWER, power, 0.5, 2.0),
            (-3.5, 3),
            lambda x, power=power: (0.5 * x + 2) ** power,
            lambda x, power=power: power * 0.5 * (0.5 * x + 2) ** (power - 1),
        )
        for power in (1.0, 2.0, 3.0, 0.5, -1.0, -0.75)
    ),
    (
        Function(FunctionKind.POWER, 2.0, 2.0, 1.0),
        (-3, 3),
        lambda x: (1 + 2 * x) ** 2,
        lambda x: 4 * (1 + 2 * x),
    ),
    (
        Function(FunctionKind.RELU6),
        (-3, 9),
        lambda x: np.clip(x, 0, 6),
        lambda x: (x > 0) & (x < 6),
    ),
    (Function(FunctionKind.CONSTANT, 1.5), (-3, 3), lambda x: 0 * x + 1.5, lambda x: 0 * x),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].kind.name}-{case[0].a}")
@pytest.mark.parametrize("count", [1, 7, 20011])
def test_value_and_slope(device: Device, case: Any, count: int) -> None:
    function, (low, high), value, slope = case
    rng = np.random.default_rng(3)
    x, dy = device.cast(rng.uniform(low, high, count), rng.uniform(0.5, 1.0, count))
    pointwise, y, dx = device.backend.pointwise, device.junk((count,)), device.up(dy)
    pointwise.function_forward(function, device.up(x), y)
    got, exact = device.down(y, (count,)), x.astype(np.float64)
    want, eps = np.asarray(value(exact), np.float64), float(np.finfo(device.dtype).eps)
    # An error of eps in the argument of exp is one of eps * argument in the result; that of a
    # logarithm near 1 is absolute.
    steep = function.kind in (FunctionKind.EXP, FunctionKind.SIGMOID)
    allowed = np.abs(want) * (1 + 1.5 * np.abs(exact) * steep)
    allowed += 0.5 if function.kind is FunctionKind.LOG else 1e-30
    worst = float((np.abs(got - want) / allowed).max()) / eps
    assert worst <= 6, f"off by {worst:.1f} eps"
    pointwise.function_backward(function, device.up(x), y, dx, dx)
    want = dy * np.asarray(slope(exact), np.float64)
    np.testing.assert_allclose(device.down(dx, (count,)), want, rtol=40 * eps, atol=4 * eps)
    source = device.up(x)
    pointwise.function_forward(function, source, source)
    np.testing.assert_array_equal(device.down(source, (count,)), got)


def test_edges(device: Device) -> None:
    """Overflow gives infinity, not NaN; a NaN stays a NaN; small numbers keep their digits."""
    inf, nan = np.inf, np.nan
    cases = [
        (Function(FunctionKind.EXP, 1.0, 1.0), [-inf, -1e4, 1e4, inf, nan], [0, 0, inf, inf, nan]),
        (Function(FunctionKind.SIGMOID, 1.0), [-inf, -1e4, 1e4, inf, nan], [0, 0, 1, 1, nan]),
        (Function(FunctionKind.TANH), [-inf, -1e4, 1e4, inf, nan], [-1, -1, 1, 1, nan]),
        (Function(FunctionKind.ELU, 1.0), [-inf, -1e4, 1e4, inf, nan], [-1, -1, 1e4, inf, nan]),
        (Function(FunctionKind.BNLL), [-inf, -1e4, 1e4, inf, nan], [0, 0, 1e4, inf, nan]),
        (Function(FunctionKind.LOG, 1.0, 0.0, 1.0), [0, -1, 1, inf, nan], [-inf, nan, 0, inf, nan]),
        (Function(FunctionKind.ABS), [-inf, -0.5, 0, inf, nan], [inf, 0.5, 0, inf, nan]),
        (Function(FunctionKind.CLIP, -1.0, 1.0), [-inf, -2, 0, inf, nan], [-1, -1, 0, 1, nan]),
        (Function(FunctionKind.TANH), [1e-20, -1e-20, 1e-6, 0, -0.0], [1e-20, -1e-20, 1e-6, 0, 0]),
    ]
    for function, x, want in cases:
        y = device.junk((5,))
        with np.errstate(all="ignore"):
            device.backend.pointwise.function_forward(function, device.up(np.array(x)), y)
        got = device.down(y, (5,))
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=str(function))


def test_relu6_has_slope_0_at_its_limits(device: Device) -> None:
    x = device.up(np.array([0.0, 6.0, 3.0]))
    y, dx = device.junk((3,)), device.up(np.ones(3))
    function = Function(FunctionKind.RELU6)
    device.backend.pointwise.function_forward(function, x, y)
    device.backend.pointwise.function_backward(function, x, y, dx, dx)
    assert device.down(y, (3,)).tolist() == [0, 6, 3]
    assert device.down(dx, (3,)).tolist() == [0, 0, 1]


def test_swish(device: Device) -> None:
    beta = 1.5
    (x, dy) = device.cast(np.linspace(-8, 8, 501), np.linspace(1, 2, 501))
    gate, y, dx = sigmoid(beta * x.astype(np.float64)), device.junk((501,)), device.up(dy)
    (stored,) = device.cast(gate)
    pointwise = device.backend.pointwise
    pointwise.eltwise_product([device.up(x), device.up(stored)], y)
    pointwise.swish_backward(beta, device.up(stored), y, dx, dx)
    want = dy * (gate + beta * x * gate * (1 - gate))
    np.testing.assert_allclose(device.down(dx, (501,)), want, atol=3e-6)
