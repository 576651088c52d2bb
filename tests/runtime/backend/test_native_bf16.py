"""Precision bf16: every instruction set and unit computes the bits that NumPy defines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError
from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvOps, Epilogue, Layout
from runtime.backend.cpu.bf16 import product, round_bf16
from runtime.backend.cpu.bf16_numpy import (
    NumpyBf16Convolution,
    NumpyBf16Products,
    depth_order,
    weight_parts,
)
from runtime.backend.cpu.lanes import Lanes
from runtime.backend.cpu.native_bf16 import NativeBf16Convolution, NativeBf16Products, round_map
from tests.runtime.backend.native_kernels import (
    Host,
    built_sets,
    each_set,
    fenced,
    junk,
    normal,
    opened,
)

LANES = Lanes(2)
each_unit = pytest.mark.parametrize("tiles", [False, True], ids=["vectors", "tiles"])

# Few and many channels, tails of steps, groups, strides with and without taps in each phase,
# dilation, padding beyond the filter, and several parts of the outputs.
GEOMETRIES = [
    ConvGeometry(1, 1, 1, 1, 1, (1, 1)),
    ConvGeometry(2, 3, 9, 8, 5, (3, 3), (1, 1)),
    ConvGeometry(2, 34, 7, 6, 21, (3, 3), (1, 1)),
    ConvGeometry(1, 40, 7, 9, 36, (1, 1), (0, 0), (2, 2), (1, 1), 2),
    ConvGeometry(2, 8, 11, 10, 8, (3, 2), (2, 1), (2, 3), (2, 1), 8),
    ConvGeometry(1, 20, 13, 13, 6, (5, 5), (0, 1), (4, 2)),
    ConvGeometry(1, 2, 5, 6, 3, (1, 1), (2, 2)),
    ConvGeometry(9, 6, 16, 17, 6, (3, 3), (1, 1), (1, 1), (1, 1), 3),
]


def wild(*shape: int) -> Host:
    """Floats of all exponents, with infinities and denormals, without NaN."""
    bits = np.random.default_rng(list(shape)).integers(0, 2**32, shape, dtype=np.uint32)
    values: Host = bits.view(np.float32)
    return np.where(np.isnan(values), np.float32(1), values)


def tiny(*shape: int, seed: int = 0) -> Host:
    """Numbers whose products are near the least normal number."""
    powers = np.random.default_rng([seed, *shape]).integers(61, 66, shape)
    return (normal(*shape, seed=seed) * 2.0**-powers).astype(np.float32)


SPECIAL = [
    (1.0, 1.0),
    (1.0 + 2.0**-8, 1.0),  # a tie, to even
    (1.0 + 3 * 2.0**-8, 1.0 + 2.0**-6),
    (1.0 + 2.0**-8 + 2.0**-20, 1.0 + 2.0**-7),
    (-(1.0 + 3 * 2.0**-8), -(1.0 + 2.0**-6)),
    (3.4e38, math.inf),
    (2.0**-126, 2.0**-126),
    (2.0**-127, 0.0),
    (-(2.0**-149), -0.0),
    (math.inf, math.inf),
    (-math.inf, -math.inf),
    (-0.0, -0.0),
    (math.nan, math.nan),
]


@each_set
def test_rounding_to_the_nearest_bf16(isa: str) -> None:
    given = np.array([pair[0] for pair in SPECIAL], np.float32)
    want = np.array([pair[1] for pair in SPECIAL], np.float32)
    np.testing.assert_array_equal(round_bf16(given), want)
    np.testing.assert_array_equal(np.signbit(round_bf16(given))[:-1], np.signbit(want)[:-1])
    random = np.concatenate([given, wild(5000)])
    got = fenced(random)
    round_map(opened(isa, 2), got)
    assert got.tobytes() == round_bf16(random).tobytes()
    assert not (got.view(np.uint32) & 0xFFFF).any()
    normal_numbers = np.isfinite(random) & (np.abs(random) > 2.0**-126) & np.isfinite(got)
    errors = np.abs(got[normal_numbers].astype(np.float64) - random[normal_numbers])
    assert (errors <= 2.0**-8 * np.abs(random[normal_numbers])).all()


def rounded(value: Fraction) -> Fraction:
    """The nearest number of 24 bits, ties to even; 0 if it is below the least normal number."""
    if value == 0:
        return value
    exponent = -126
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    ulp = Fraction(2) ** (exponent - 23)
    nearest = round(value / ulp) * ulp
    return nearest if abs(nearest) >= Fraction(2) ** -126 else Fraction(0)


@pytest.mark.parametrize("make", [normal, tiny])
def test_the_product_is_that_of_exact_fractions(make: Callable[..., Host]) -> None:
    a, b = make(2, 64, seed=1), make(64, 3, seed=2)
    start = normal(2, 3) * np.float32(1 if make is normal else 2.0**-127)
    got = start.copy()
    product(LANES, a, b, got)
    left, right = round_bf16(a), round_bf16(b)
    for i, j in np.ndindex(got.shape):
        total = rounded(Fraction(float(start[i, j])))
        for step in (0, 32):
            part = [Fraction(0), Fraction(0)]
            for k in range(step, step + 32):
                term = Fraction(float(left[i, k])) * Fraction(float(right[k, j]))
                part[k % 2] = rounded(part[k % 2] + term)
            total = rounded(total + rounded(part[0] + part[1]))
        assert Fraction(float(got[i, j])) == total


@each_unit
@each_set
@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 7, 3), (33, 65, 70), (40, 70, 300)])
def test_gemm(isa: str, tiles: bool, sizes: tuple[int, int, int]) -> None:
    rows, cols, depth = sizes
    products = NativeBf16Products(opened(isa, 2), tiles)
    for trans_a, trans_b, alpha, beta in (
        (False, False, 1.0, 0.0),
        (False, True, 1.0, 1.0),
        (True, False, 0.5, 0.25),
        (True, True, 2.0, 0.0),
    ):
        a = fenced(normal(*((depth, rows) if trans_a else (rows, depth))))
        b = fenced(normal(*((cols, depth) if trans_b else (depth, cols))))
        want = normal(rows, cols, seed=1) if beta else junk((rows, cols))
        got = fenced(want)
        NumpyBf16Products(LANES).gemm(trans_a, trans_b, alpha, a, b, beta, want)
        products.gemm(trans_a, trans_b, alpha, a, b, beta, got)
        assert got.tobytes() == want.tobytes()


@each_unit
@each_set
def test_numbers_of_all_exponents(isa: str, tiles: bool) -> None:
    """Overflow, underflow in products, in chains and in sums: TDPBF16PS flushes denormals."""
    products = NativeBf16Products(opened(isa, 1), tiles)
    cases = [(wild(33, 64), wild(64, 40), wild(33, 40))]
    denormal = normal(40, 33) * np.float32(2.0**-127)
    cases += [(tiny(40, 64, seed=s), tiny(64, 33, seed=s), denormal) for s in range(3)]
    for a, b, start in cases:
        want, got = start.copy(), start.copy()
        with np.errstate(all="ignore"):
            NumpyBf16Products(LANES).gemm(False, False, 1.0, a, b, 1.0, want)
        products.gemm(False, False, 1.0, a, b, 1.0, got)
        number = ~np.isnan(want)
        assert got[number].tobytes() == want[number].tobytes()
        assert np.isnan(got[~number]).all()
    assert 0.001 < np.mean(want == 0) < 0.9  # some are flushed


def passes(conv: ConvOps, geom: ConvGeometry) -> Iterator[Host]:
    plan = conv.plan(geom)
    x, weight, dy = (
        fenced(normal(*shape)) for shape in (geom.in_shape, geom.weight_shape, geom.out_shape)
    )
    for epilogue in (Epilogue(), Epilogue(normal(geom.k), relu=True)):
        y = junk(geom.out_shape)
        conv.forward(plan, x, weight, epilogue, y, None)
        yield y
    dx = junk(geom.in_shape)
    conv.backward_data(plan, dy, weight, dx, None)
    yield dx
    dw = fenced(normal(*geom.weight_shape, seed=1))
    conv.backward_weight(plan, x, dy, dw)
    yield dw


@each_unit
@each_set
@pytest.mark.parametrize("geom", GEOMETRIES, ids=str)
def test_convolution(isa: str, tiles: bool, geom: ConvGeometry) -> None:
    want = list(passes(NumpyBf16Convolution(LANES), geom))
    got = list(passes(NativeBf16Convolution(opened(isa, 2), tiles), geom))
    for name, mine, wanted in zip(("y", "relu(y)", "dx", "dw"), got, want, strict=True):
        assert mine.tobytes() == wanted.tobytes(), name
    for maps in got[:3]:
        np.testing.assert_array_equal(maps, round_bf16(maps))


def test_threads_and_the_batch_do_not_change_bits() -> None:
    geom = ConvGeometry(3, 20, 24, 23, 70, (3, 3), (1, 1))
    isa = opened_best()
    want = list(passes(NativeBf16Convolution(opened(isa, 1)), geom))
    for threads in (2, 3, 7):
        got = list(passes(NativeBf16Convolution(opened(isa, threads)), geom))
        assert [a.tobytes() for a in got] == [b.tobytes() for b in want]
    conv = NativeBf16Convolution(opened(isa, 2))
    x, weight = normal(*geom.in_shape), normal(*geom.weight_shape)
    one = ConvGeometry(1, *geom.in_shape[1:], geom.k, geom.kernel, geom.pad)
    y = junk(one.out_shape)
    conv.forward(conv.plan(one), np.ascontiguousarray(x[1:2]), weight, Epilogue(), y, None)
    assert y.tobytes() == want[0][1:2].tobytes()


def opened_best() -> str:
    sets = built_sets()
    if not sets:
        pytest.skip("the kernels are not built")
    return sets[0]


def test_rows_of_a_product_do_not_depend_on_other_rows() -> None:
    products = NativeBf16Products(opened(opened_best(), 2))
    a, b, c, one = normal(50, 90), normal(70, 90), junk((50, 70)), junk((1, 70))
    products.gemm(False, True, 1.0, a, b, 0.0, c)
    products.gemm(False, True, 1.0, a[17:18].copy(), b, 0.0, one)
    assert one.tobytes() == c[17:18].tobytes()


def test_the_order_of_a_sum() -> None:
    """Taps column by column; with few channels without padding, else in blocks of 32."""
    assert depth_order(1, 2, 2)[:5] == [(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), None]
    assert len(depth_order(16, 3, 3)) == 160
    order = depth_order(33, 2, 1)
    assert len(order) == 4 * 32
    assert [order[i] for i in (0, 31, 32, 64, 65)] == [
        (0, 0, 0),
        (31, 0, 0),
        (0, 1, 0),
        (32, 0, 0),
        None,
    ]
    assert weight_parts(ConvGeometry(9, 6, 16, 17, 6, (3, 3), (1, 1))) == [(0, 1216), (1216, 2464)]
    assert len(weight_parts(ConvGeometry(9, 512, 16, 17, 512, (3, 3), (1, 1)))) == 1


@each_set
def test_a_bias_gives_a_rounded_map(isa: str) -> None:
    y, bias, layout = fenced(normal(3, 5, 7)), normal(5), Layout(3, 5, 7)
    want = round_bf16(y + bias[:, None])
    for products in (NativeBf16Products(opened(isa, 2)), NumpyBf16Products(LANES)):
        got = fenced(y)
        products.bias_forward(layout, bias, got)
        np.testing.assert_array_equal(got, want)


@each_set
def test_products_of_no_terms(isa: str) -> None:
    for products in (NativeBf16Products(opened(isa, 2)), NumpyBf16Products(LANES)):
        c = normal(3, 4)
        want = c * np.float32(0.5)
        products.gemm(False, False, 1.0, normal(3, 0), normal(0, 4), 0.5, c)
        np.testing.assert_array_equal(c, want)
        products.gemm(False, False, 1.0, normal(3, 0), normal(0, 4), 0.0, c)
        np.testing.assert_array_equal(c, 0)
        products.gemm(False, False, 1.0, normal(0, 2), normal(2, 4), 0.0, normal(0, 4))


@each_set
def test_wrong_shapes_are_refused(isa: str) -> None:
    library = opened(isa, 1)
    with pytest.raises(ShapeError, match=r"op\(a\) is 2x3, op\(b\) 4x5"):
        NativeBf16Products(library).gemm(
            False, False, 1.0, normal(2, 3), normal(4, 5), 0.0, normal(2, 5)
        )
    conv, geom = NativeBf16Convolution(library), GEOMETRIES[1]
    with pytest.raises(ShapeError, match="conv_forward: input: expected a contiguous float32"):
        conv.forward(
            conv.plan(geom),
            normal(3),
            normal(*geom.weight_shape),
            Epilogue(),
            normal(*geom.out_shape),
            None,
        )
