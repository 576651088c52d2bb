"""Winograd's F(4x4, 3x3) (Lavin & Gray 2016), each 2-D transform as one matrix.

A tile of 4x4 outputs is A^T ((G g G^T) * (B^T d B)) A for a 3x3 filter g and 6x6 inputs d: 36
products instead of 144. On tiles flattened row by row, d -> B^T d B is multiplication by
kron(B^T, B^T), so the transform of many tiles is one matrix product. Its cost does not depend on
the entries, so the points can be chosen for precision: 0, 2/3, -2/3, 3/2, -3/2 and infinity give
half the rounding error of the usual 0, 1, -1, 2, -2 and infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from runtime.backend.base import HostArray

TILE = 4
"""Outputs along one side of a tile."""
SPAN = 6
"""Inputs along one side of a tile."""
PLANES = SPAN * SPAN

_POINTS = (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))
_Row = list[Fraction]


@dataclass(frozen=True)
class Matrices:
    """The transforms in float32.

    Shapes: data (36,36); filters (36,9); rotated_filters (36,9), for filters rotated by 180 degrees
    in the backward pass; products (16,36).
    """

    data: HostArray
    filters: HostArray
    rotated_filters: HostArray
    products: HostArray

    @classmethod
    def build(cls) -> Matrices:
        b_t, g, a_t = toom_cook(_POINTS)
        return cls(_square(b_t), _square(g), _square(g[:, ::-1]), _square(a_t))


def toom_cook(points: Sequence[Fraction]) -> tuple[HostArray, HostArray, HostArray]:
    """B^T (6,6), G (6,3) and A^T (4,6) of F(4, 3) for five points, and infinity as the sixth.

    From multiplication of polynomials by their values at the points, and the transposition
    principle: A^T has powers of the points, G powers divided by the products of differences, and
    B^T the coefficients of the polynomials that vanish at all other points.

    Shapes: points (5,).
    """
    a_t = [[point**power for point in points] for power in range(TILE)]
    for power, row in enumerate(a_t):
        row.append(Fraction(power == TILE - 1))
    b_t, g = [], []
    for point in points:
        others = [other for other in points if other != point]
        weight = math.prod((point - other for other in others), start=Fraction(1))
        g.append([point**power / weight for power in range(3)])
        b_t.append(_vanishing_at(others))
    g.append([Fraction(0), Fraction(0), Fraction(1)])
    b_t.append(_vanishing_at(points))
    return np.array(b_t, np.float64), np.array(g, np.float64), np.array(a_t, np.float64)


def _vanishing_at(roots: Sequence[Fraction]) -> _Row:
    """Coefficients of the product of (x - root), lowest first, with zeros up to SPAN."""
    row = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *row], [*(root * term for term in row), Fraction(0)]
        row = [high - low for high, low in zip(shifted, scaled, strict=True)]
    return row + [Fraction(0)] * (SPAN - len(row))


def _square(matrix: HostArray) -> HostArray:
    """The 2-D transform as one matrix. Shapes: (m,n) to (m*m,n*n)."""
    return np.ascontiguousarray(np.kron(matrix, matrix), np.float32)
