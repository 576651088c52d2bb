"""Functions of one number and their slopes in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.backend.base import Function, FunctionKind, HostArray


def value(function: Function, x: HostArray) -> Any:
    """f(x)."""
    return _VALUES[function.kind](function, x)


def slope(function: Function, x: HostArray, y: HostArray) -> Any:
    """f'(x), with y = f(x)."""
    return _SLOPES[function.kind](function, x, y)


def _sigmoid(x: HostArray) -> HostArray:
    """Without overflow, and with all digits for negative x."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x > 0, 1, e) / (1 + e))


def _elu(f: Function, x: HostArray) -> Any:
    return np.where(x > 0, x, f.a * np.expm1(np.minimum(x, 0)))


def _bnll(f: Function, x: HostArray) -> Any:
    """Without overflow for large and small x."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _power(f: Function, x: HostArray) -> Any:
    y = x * f.b + f.c
    return y if f.a == 1 else y**f.a


def _power_slope(f: Function, x: HostArray, y: HostArray) -> Any:
    """a b (b x + c)^(a - 1), by a division as in Caffe."""
    factor = f.a * f.b
    if f.a == 1:
        return factor
    inner = x * f.b + f.c
    return factor * inner if f.a == 2 else factor * (y / inner)


_VALUES: dict[FunctionKind, Callable[[Function, HostArray], Any]] = {
    FunctionKind.ABS: lambda f, x: np.abs(x),
    FunctionKind.CLIP: lambda f, x: np.clip(x, f.a, f.b),
    FunctionKind.THRESHOLD: lambda f, x: x > f.a,
    FunctionKind.SIGMOID: lambda f, x: _sigmoid(f.a * x),
    FunctionKind.TANH: lambda f, x: np.tanh(x),
    FunctionKind.ELU: _elu,
    FunctionKind.EXP: lambda f, x: f.b * np.exp(f.a * x),
    FunctionKind.LOG: lambda f, x: f.c * np.log(f.a * x + f.b),
    FunctionKind.BNLL: _bnll,
    FunctionKind.POWER: _power,
    FunctionKind.CONSTANT: lambda f, x: np.full_like(x, f.a),
    FunctionKind.RELU6: lambda f, x: np.clip(x, 0, 6),
}
_SLOPES: dict[FunctionKind, Callable[[Function, HostArray, HostArray], Any]] = {
    FunctionKind.ABS: lambda f, x, y: np.sign(x),
    FunctionKind.CLIP: lambda f, x, y: (x >= f.a) & (x <= f.b),
    FunctionKind.THRESHOLD: lambda f, x, y: 0,
    FunctionKind.SIGMOID: lambda f, x, y: f.a * y * (1 - y),
    FunctionKind.TANH: lambda f, x, y: 1 - y * y,
    FunctionKind.ELU: lambda f, x, y: np.where(x > 0, 1, f.a + y),
    FunctionKind.EXP: lambda f, x, y: f.a * y,
    FunctionKind.LOG: lambda f, x, y: f.a * f.c / (f.a * x + f.b),
    FunctionKind.BNLL: lambda f, x, y: _sigmoid(x),
    FunctionKind.POWER: _power_slope,
    FunctionKind.CONSTANT: lambda f, x, y: 0,
    FunctionKind.RELU6: lambda f, x, y: (y > 0) & (y < 6),
}
