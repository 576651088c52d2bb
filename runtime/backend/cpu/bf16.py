"""The arithmetic of precision bf16 in NumPy: rounding, and the product that all kernels agree with.

A product takes its depth in steps of 32. In a step, s_even is a chain of fused multiply-adds over
the even places and s_odd over the odd places, both from 0; then sum = sum + (s_even + s_odd).
Denormal operands, sums and results become 0 of the same sign. TDPBF16PS, the instruction of AMX,
computes this.
"""

from __future__ import annotations

import numpy as np

from prototxt_gen.integers import ceil_div
from runtime.backend.base import HostArray
from runtime.backend.cpu.lanes import Lane, Runner

STEP = 32
"""Products of one step."""
_LEAST = np.float32(2.0**-126)
# Below this, results of float32 may be denormal; 2^64 brings them back to 24 bits of mantissa.
_NEAR_DENORMAL = 1e-37
_SCALE = 2.0**64
_GRAIN = 1 << 14


def round_bf16(x: HostArray) -> HostArray:
    """The nearest bf16 numbers as float32: ties to even, denormals to 0, NaN to a quiet NaN.

    Shapes: any, x float32.
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    nearest = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    number = np.where(magnitude > 0x7F800000, bits | np.uint32(0x400000), nearest)
    kept = np.where(magnitude < 0x800000, np.uint32(0x80000000) & bits, number)
    rounded: HostArray = (kept & np.uint32(0xFFFF0000)).view(np.float32)
    return rounded.reshape(x.shape)


def flushed(x: HostArray) -> HostArray:
    """x with 0 of the same sign in place of denormals. Shapes: any, x float32."""
    return np.where(np.abs(x) < _LEAST, np.copysign(np.float32(0), x), x)


def _narrow(x: HostArray) -> HostArray:
    """The nearest float32 numbers, 0 for those that are denormal after rounding."""
    result: HostArray = x.astype(np.float32)
    magnitude = np.abs(x)
    tiny = (magnitude < _NEAR_DENORMAL) & (magnitude > 0)
    if tiny.any():
        scaled = (x[tiny] * _SCALE).astype(np.float32)
        below = np.abs(scaled) < np.float32(2.0**-62)
        exact = (scaled.astype(np.float64) / _SCALE).astype(np.float32)
        result[tiny] = np.where(below, np.copysign(np.float32(0), scaled), exact)
    return result


def _add(a: HostArray, b: HostArray) -> HostArray:
    return _narrow(a.astype(np.float64) + b.astype(np.float64))


def padded_steps(x: HostArray, axis: int) -> HostArray:
    """x with zeros up to a whole number of steps. Shapes: 2-D."""
    missing = ceil_div(x.shape[axis], STEP) * STEP - x.shape[axis]
    widths = [(0, missing if dim == axis else 0) for dim in range(2)]
    return np.pad(x, widths) if missing else x


def product(runner: Runner, a: HostArray, b: HostArray, sums: HostArray) -> None:
    """sums = sums + a b, by the definition of this file.

    Shapes: a (M,K), b (K,N), sums (M,N), K a multiple of STEP; all float32.
    """
    left, right = round_bf16(a).astype(np.float64), round_bf16(b).astype(np.float64)
    rows, cols = sums.shape
    grain = max(1, _GRAIN // max(1, rows))

    def task(lane: Lane, start: int, stop: int) -> None:
        columns = slice(start, stop)
        total = flushed(sums[:, columns])
        # NaN and infinity are results like others.
        with np.errstate(all="ignore"):
            for step in range(0, left.shape[1], STEP):
                part = [np.zeros(total.shape, np.float32) for _ in range(2)]
                for k in range(step, step + STEP):
                    # Exact in float64: the terms have 8 bits each, and the sum is either exact or
                    # far from the middle of two float32 numbers.
                    terms = left[:, k, None] * right[None, k, columns]
                    part[k % 2] = _narrow(part[k % 2].astype(np.float64) + terms)
                total = _add(total, _add(*part))
        sums[:, columns] = total

    runner.run(task, cols, grain)
