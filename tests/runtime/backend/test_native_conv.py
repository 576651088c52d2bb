"""Convolution by the compiled kernels: against float64, for every instruction set and threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError
from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import ConvPlan, Epilogue
from runtime.backend.cpu.native_conv import NativeConvolution
from runtime.backend.cpu.native_library import NativeLibrary
from runtime.backend.cpu.native_plan import DEPTHWISE, DIRECT, ROWS, Passes, plan_native
from tests.oracle import conv as loops
from tests.oracle.tolerance import assert_close
from tests.runtime.backend.native_kernels import (
    Host,
    each_set,
    fenced,
    junk,
    needs_kernels,
    normal,
    opened,
)

# Terms added one after another drift with the size of the partial sum, which outgrows its terms: 2.
# Winograd's transforms enlarge rounding errors: measured up to 1.5 for F(2x2) and 5 for F(4x4).
FACTOR = {DIRECT: 2.0, ROWS: 2.0, DEPTHWISE: 2.0, 2: 3.0, 4: 8.0}
THREADS = (1, 2, 3)

SAME = [
    ConvGeometry(1, 1, 3, 3, 1, (3, 3), (1, 1)),
    ConvGeometry(1, 3, 7, 9, 5, (3, 3), (1, 1)),
    ConvGeometry(2, 5, 4, 4, 3, (3, 3)),
    ConvGeometry(2, 17, 13, 19, 33, (3, 3), (2, 2)),
    ConvGeometry(1, 16, 16, 16, 32, (3, 3), (1, 1)),
    ConvGeometry(1, 4, 5, 270, 20, (3, 3), (1, 0)),
    ConvGeometry(3, 40, 14, 14, 48, (3, 3), (1, 1)),
    ConvGeometry(9, 8, 6, 6, 8, (3, 3), (0, 2)),
    ConvGeometry(2, 24, 30, 31, 50, (3, 3), (1, 1)),
    ConvGeometry(1, 130, 6, 5, 7, (3, 3), (1, 1)),
]
ANY = [
    ConvGeometry(1, 1, 1, 1, 1, (1, 1)),
    ConvGeometry(2, 4, 11, 8, 6, (5, 3), (2, 0), (2, 1)),
    ConvGeometry(2, 6, 13, 17, 9, (3, 3), (2, 2), (2, 3), (2, 1), 3),
    ConvGeometry(3, 40, 9, 9, 33, (1, 1)),
    # Rows of stride 2 that end with the last element of x, and before it.
    ConvGeometry(2, 3, 9, 65, 5, (1, 1), (0, 0), (2, 2)),
    ConvGeometry(1, 3, 7, 64, 5, (1, 1), (0, 0), (2, 2)),
    ConvGeometry(1, 2, 9, 71, 4, (5, 7), (2, 3), (2, 2)),
    ConvGeometry(2, 6, 5, 40, 8, (1, 1), (0, 0), (1, 2), group=2),
    # Planes as long rows, with panels of columns that cross images; not with a pad.
    ConvGeometry(5, 6, 7, 7, 9, (1, 1), group=3),
    ConvGeometry(2, 3, 6, 7, 4, (1, 1), (1, 0)),
    ConvGeometry(2, 8, 10, 10, 8, (3, 3), (1, 1), group=8),
    ConvGeometry(1, 3, 23, 27, 17, (7, 7), (3, 3), (4, 4)),
    ConvGeometry(3, 20, 7, 7, 30, (7, 7)),
    ConvGeometry(1, 5, 9, 9, 4, (2, 2), (0, 0), (5, 5)),
    ConvGeometry(2, 33, 12, 12, 70, (3, 3), (4, 4), (1, 1), (4, 4)),
    ConvGeometry(4, 3, 40, 40, 64, (3, 3), (1, 1)),
    ConvGeometry(1, 2, 6, 6, 3, (1, 1), (0, 0), (3, 3)),
    ConvGeometry(2, 3, 8, 8, 4, (3, 3), (3, 3), (2, 2), (3, 2)),
    ConvGeometry(2, 4, 9, 11, 6, (3, 2), (1, 1), (1, 2), (1, 3), 2),
]
FEW = [
    ConvGeometry(2, 3, 9, 17, 8, (3, 3), (1, 1)),
    ConvGeometry(3, 1, 5, 33, 1, (3, 3), (2, 2)),
    ConvGeometry(1, 4, 40, 300, 15, (3, 3), (0, 1)),
    ConvGeometry(5, 3, 3, 3, 33, (3, 3), (0, 0)),
    ConvGeometry(2, 2, 700, 5, 20, (3, 3), (1, 0)),
]
BY_CHANNEL = [
    ConvGeometry(2, 8, 10, 10, 8, (3, 3), (1, 1), group=8),
    ConvGeometry(3, 37, 14, 14, 37, (3, 3), (1, 1), (2, 2), group=37),
    ConvGeometry(1, 2, 112, 75, 2, (3, 3), (1, 1), group=2),
    ConvGeometry(1, 2, 113, 131, 2, (3, 3), (0, 1), (2, 2), group=2),
    ConvGeometry(2, 5, 7, 7, 15, (3, 3), (1, 1), group=5),
    ConvGeometry(2, 3, 17, 19, 6, (5, 5), (2, 2), (2, 2), group=3),
    ConvGeometry(1, 4, 12, 40, 4, (7, 3), (3, 0), (1, 3), (2, 1), 4),
    ConvGeometry(2, 3, 9, 11, 3, (2, 4), (1, 5), (3, 2), (1, 2), 3),
    ConvGeometry(1, 3, 8, 8, 3, (8, 8), group=3),
    ConvGeometry(2, 4, 6, 6, 4, (1, 1), (0, 0), (4, 4), group=4),
    ConvGeometry(1, 2, 3, 600, 2, (9, 9), (4, 4), group=2),
    ConvGeometry(1, 2, 5, 5, 2, (3, 3), (4, 4), group=2),
    ConvGeometry(1, 2, 4, 9001, 2, (3, 3), (1, 1), group=2),
]
CASES = [(g, m) for g in SAME for m in (2, 4)] + [(g, DIRECT) for g in SAME[:4] + ANY]
CASES += [(g, DEPTHWISE) for g in BY_CHANNEL]
CASES += [(g, ROWS) for g in SAME[:2] + FEW]


def forced(library: NativeLibrary, geom: ConvGeometry, m: int) -> ConvPlan:
    """A plan with one algorithm for every pass, without the table."""
    data = DIRECT if m == ROWS else m
    return plan_native(library, geom, exact=False, passes=Passes(m, data, m))


def reference(geom: ConvGeometry, x: Host, w: Host, dy: Host) -> tuple[Host, Host, Host]:
    """y, dx and dw in float64, tap by tap: the oracle's sums, fast enough for these sizes."""
    (ph, pw), (sh, sw), (dh, dw_) = geom.pad, geom.stride, geom.dilation
    padded = np.zeros((geom.n, geom.c, geom.h + 2 * ph, geom.w + 2 * pw))
    padded[:, :, ph : ph + geom.h, pw : pw + geom.w] = x
    y, dx, dw = np.zeros(geom.out_shape), np.zeros_like(padded), np.zeros(geom.weight_shape)
    c, k = geom.c // geom.group, geom.k // geom.group
    for group, r, s in np.ndindex(geom.group, *geom.kernel):
        rows = slice(r * dh, r * dh + (geom.p - 1) * sh + 1, sh)
        cols = slice(s * dw_, s * dw_ + (geom.q - 1) * sw + 1, sw)
        seen = (slice(None), slice(group * c, (group + 1) * c), rows, cols)
        made = slice(group * k, (group + 1) * k)
        tap, top = w[made, :, r, s].astype(np.float64), dy[:, made].astype(np.float64)
        y[:, made] += np.einsum("nchw,kc->nkhw", padded[seen], tap)
        dx[seen] += np.einsum("nkhw,kc->nchw", top, tap)
        dw[made, :, r, s] = np.einsum("nchw,nkhw->kc", padded[seen], top)
    return y, dx[:, :, ph : ph + geom.h, pw : pw + geom.w], dw


def test_the_reference_is_the_oracle() -> None:
    geom = ANY[2]
    x, w, dy = normal(*geom.in_shape), normal(*geom.weight_shape), normal(*geom.out_shape)
    y, dx, dw = reference(geom, x, w, dy)
    np.testing.assert_allclose(y, loops.forward(geom, x, w), atol=1e-5)
    np.testing.assert_allclose(dx, loops.backward_data(geom, dy, w), atol=1e-5)
    np.testing.assert_allclose(dw, loops.backward_weight(geom, x, dy), atol=1e-5)


def largest(*arrays: Host) -> float:
    return float(np.prod([np.abs(a).max() for a in arrays]))


def passes(library: NativeLibrary, plan: ConvPlan, *operands: Host) -> list[Host]:
    """y with bias and ReLU, dx, and dw added to what was there."""
    x, w, bias, dy, before = operands
    geom, conv = plan.geometry, NativeConvolution(library)
    y, dx, dw = junk(geom.out_shape), junk(geom.in_shape), fenced(before)
    conv.forward(plan, x, w, Epilogue(bias, relu=True), y, None)
    conv.backward_data(plan, dy, w, dx, None)
    conv.backward_weight(plan, x, dy, dw)
    return [y, dx, dw]


@each_set
@pytest.mark.parametrize(("geom", "m"), CASES, ids=str)
def test_passes_agree_with_float64_for_any_threads(isa: str, geom: ConvGeometry, m: int) -> None:
    operands = [
        fenced(normal(*shape, seed=seed))
        for seed, shape in enumerate(
            (geom.in_shape, geom.weight_shape, (geom.k,), geom.out_shape, geom.weight_shape)
        )
    ]
    x, w, bias, dy, before = operands
    results = []
    for threads in THREADS:
        library = opened(isa, threads)
        results.append(passes(library, forced(library, geom, m), *operands))
    for other in results[1:]:
        for name, a, b in zip(("y", "dx", "dw"), results[0], other, strict=True):
            assert a.tobytes() == b.tobytes(), f"{name} depends on the number of threads"
    y, dx, dw = results[0]
    plain, want_dx, want_dw = reference(geom, x, w, dy)
    want_y = np.maximum(plain + bias[:, None, None], 0.0)
    terms = w[0].size
    assert_close("y", y, want_y, terms + 1, largest(x, w), FACTOR[m])
    back = geom.k // geom.group * geom.kernel[0] * geom.kernel[1]
    assert_close("dx", dx, want_dx, back, largest(dy, w), FACTOR[m])
    assert_close("dw", dw, before + want_dw, geom.n * geom.p * geom.q, largest(x, dy), FACTOR[m])


@each_set
@pytest.mark.parametrize("m", [2, 4, DIRECT, ROWS])
def test_a_delta_filter_moves_the_image(isa: str, m: int) -> None:
    geom = ConvGeometry(1, 20, 9, 9, 20, (3, 3), (1, 1))
    library = opened(isa, 2)
    w = np.zeros(geom.weight_shape, np.float32)
    w[np.arange(20), np.arange(20), 0, 2] = 1.0
    x, y = normal(*geom.in_shape), junk(geom.out_shape)
    NativeConvolution(library).forward(forced(library, geom, m), x, w, Epilogue(), y, None)
    want = np.zeros_like(x)
    want[:, :, 1:, :-1] = x[:, :, :-1, 1:]
    np.testing.assert_allclose(y, want, atol=5e-6 if m in (2, 4) else 0.0)


@needs_kernels
@pytest.mark.parametrize(
    ("geom", "forward", "data", "weight"),
    [
        (ConvGeometry(8, 64, 56, 56, 64, (3, 3), (1, 1)), 4, 4, 4),
        (ConvGeometry(1, 512, 14, 14, 512, (3, 3), (1, 1)), 2, 2, 2),
        (ConvGeometry(2, 512, 14, 14, 512, (3, 3), (1, 1)), 4, 4, 2),
        (ConvGeometry(64, 3, 64, 64, 8, (3, 3), (1, 1)), 1, 4, 1),
        (ConvGeometry(8, 3, 224, 224, 64, (3, 3), (1, 1)), 1, 4, 4),
        (ConvGeometry(8, 5, 64, 64, 8, (3, 3), (1, 1)), 0, 4, 0),
        (ConvGeometry(1, 64, 56, 56, 64, (3, 3), (1, 1), (2, 2)), 0, 0, 0),
        (ConvGeometry(1, 64, 56, 56, 64, (3, 3), (3, 3)), 0, 0, 0),
        (ConvGeometry(1, 64, 56, 56, 64, (1, 1)), 0, 0, 0),
        (ConvGeometry(1, 1024, 14, 14, 1024, (3, 3), (1, 1)), 2, 2, 2),
        (ConvGeometry(1, 2048, 14, 14, 1024, (3, 3), (1, 1)), 0, 0, 0),
    ],
    ids=str,
)
def test_the_table(geom: ConvGeometry, forward: int, data: int, weight: int) -> None:
    assert Passes.of(geom, exact=False) == Passes(forward, data, weight)
    plain = ROWS if forward == ROWS else DIRECT
    assert Passes.of(geom, exact=True) == Passes(plain, DIRECT, plain)


@needs_kernels
@pytest.mark.parametrize("exact", [False, True])
def test_filters_that_read_one_channel_are_depthwise(exact: bool) -> None:
    everywhere = Passes(DEPTHWISE, DEPTHWISE, DEPTHWISE)
    assert all(Passes.of(geom, exact) == everywhere for geom in BY_CHANNEL)
    grouped = ConvGeometry(2, 8, 10, 10, 8, (3, 3), (1, 1), group=4)
    single = ConvGeometry(2, 1, 10, 10, 8, (3, 3), (1, 1))
    assert everywhere not in (Passes.of(grouped, exact), Passes.of(single, exact))


@each_set
def test_the_plan_names_its_algorithms_and_bounds_its_workspace(isa: str) -> None:
    library = opened(isa, 2)
    layers = [(3, 64, 224), (64, 64, 224), (128, 256, 56), (512, 512, 28), (512, 512, 14)]
    for n in (1, 8, 64):
        for c, k, size in layers:
            plan = plan_native(library, ConvGeometry(n, c, size, size, k, (3, 3), (1, 1)), False)
            assert 0 < plan.workspace_bytes <= 72 << 20, str(plan.geometry)
    assert plan.algorithm == "native:winograd_4x4"
    few = plan_native(library, ConvGeometry(1, 3, 16, 16, 8, (3, 3), (1, 1)), False)
    assert few.algorithm == "native:rows/winograd_4x4/rows"


@each_set
def test_filters_are_kept_for_a_version_that_comes_again(isa: str) -> None:
    geom = ConvGeometry(1, 16, 8, 8, 16, (3, 3), (1, 1))
    library = opened(isa, 1)
    conv, plan = NativeConvolution(library), plan_native(library, geom, False)
    x, w, y = normal(*geom.in_shape), normal(*geom.weight_shape), junk(geom.out_shape)

    def forward(weight: Host, version: int | None) -> Host:
        conv.forward(plan, x, weight, Epilogue(), y, version)
        return y.copy()

    first = forward(w, 1)
    assert plan.cache["filters"].filters is None, "a version seen once is not worth the memory"
    np.testing.assert_array_equal(forward(w, 1), first)
    np.testing.assert_array_equal(forward(2 * w, 1), first)
    np.testing.assert_array_equal(forward(2 * w, 2), 2 * first)
    np.testing.assert_array_equal(forward(4 * w, 2), 2 * first)
    np.testing.assert_array_equal(forward(w, None), first)
    np.testing.assert_array_equal(forward(2 * w, None), 2 * first)
    np.testing.assert_array_equal(forward(w, 2), first)


@each_set
def test_directions_keep_filters_of_their_own(isa: str) -> None:
    geom = ConvGeometry(1, 16, 8, 8, 16, (3, 3), (1, 1))
    library = opened(isa, 1)
    conv, plan = NativeConvolution(library), plan_native(library, geom, False)
    x, w, y = normal(*geom.in_shape), normal(*geom.weight_shape), junk(geom.out_shape)
    results = []
    for _ in range(3):
        conv.forward(plan, x, w, Epilogue(), y, 7)
        results.append(y.copy())
        conv.backward_data(plan, x, w, y, 7)
        results.append(y.copy())
    for again in (2, 4):
        np.testing.assert_array_equal(results[again], results[0])
        np.testing.assert_array_equal(results[again + 1], results[1])
    assert not np.array_equal(results[0], results[1])


@each_set
@pytest.mark.parametrize("geom", [SAME[4], ANY[1]], ids=str)
def test_a_batch_without_images(isa: str, geom: ConvGeometry) -> None:
    geom = replace(geom, n=0)
    library = opened(isa, 2)
    before = normal(*geom.weight_shape)
    x, dy = normal(*geom.in_shape), normal(*geom.out_shape)
    for m in (DIRECT, 4) if geom.is_3x3_same else (DIRECT,):
        plan = forced(library, geom, m)
        dw = passes(library, plan, x, before, normal(geom.k), dy, before)[2]
        np.testing.assert_array_equal(dw, before)


@each_set
def test_a_wrong_array_is_named(isa: str) -> None:
    geom = ConvGeometry(1, 16, 8, 8, 16, (3, 3), (1, 1))
    library = opened(isa, 1)
    conv, plan = NativeConvolution(library), plan_native(library, geom, False)
    x, w, y = normal(*geom.in_shape), normal(*geom.weight_shape), junk(geom.out_shape)
    with pytest.raises(
        ShapeError,
        match=r"conv_forward: y: expected a contiguous float32 array of 1024 elements, got a "
        r"strided float32 array of shape \(1, 16, 8, 8\); allocate it with",
    ):
        conv.forward(plan, x, w, Epilogue(), y.transpose(0, 1, 3, 2), None)
    with pytest.raises(ShapeError, match=r"conv_backward_weight: dy: .* got a contiguous float64"):
        conv.backward_weight(plan, x, y.astype(np.float64), w)
