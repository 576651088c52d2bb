"""Integer division that rounds up, compared with fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from prototxt_gen.integers import ceil_div, round_up


@pytest.mark.parametrize("size", [1, 2, 7, 2**62 + 1])
@pytest.mark.parametrize("count", [-8, -7, -1, 0, 1, 6, 7, 8, 2**63, 2**63 + 1])
def test_exact_for_integers_of_any_size_and_sign(count: int, size: int) -> None:
    assert ceil_div(count, size) == math.ceil(Fraction(count, size))
    assert round_up(count, size) == size * math.ceil(Fraction(count, size))
