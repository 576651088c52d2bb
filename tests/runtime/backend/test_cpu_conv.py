"""Convolution on the CPU: the table, the pieces, the transforms, and memory."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
import pytest

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import Epilogue
from runtime.backend.cpu import conv_winograd
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cpu.conv_pieces import Window, cut, padded_band
from runtime.backend.cpu.lanes import Lane
from runtime.backend.cpu.winograd_matrices import Matrices, toom_cook

NumpyBackend = functools.partial(CpuBackend, native=False)

VGG = [
    (3, 64, 224),
    (64, 64, 224),
    (64, 128, 112),
    (128, 128, 112),
    (128, 256, 56),
    (256, 256, 56),
    (256, 512, 28),
    (512, 512, 28),
    (512, 512, 14),
]


def same(n: int, c: int, size: int, k: int) -> ConvGeometry:
    return ConvGeometry(n, c, size, size, k, (3, 3), (1, 1))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    ("geom", "algorithm"),
    [
        (same(1, 64, 56, 64), "winograd_4x4"),
        (same(1, 16, 8, 16), "winograd_4x4"),
        (same(1, 3, 224, 64), "im2col"),
        (same(1, 64, 56, 15), "im2col"),
        (ConvGeometry(1, 64, 56, 56, 64, (3, 3), (1, 1), (2, 2)), "im2col"),
        (ConvGeometry(1, 64, 56, 56, 64, (3, 3), dilation=(2, 2)), "im2col"),
        (ConvGeometry(1, 64, 56, 56, 64, (3, 3), group=2), "im2col"),
        (ConvGeometry(1, 64, 56, 56, 64, (1, 1)), "im2col"),
    ],
    ids=str,
)
def test_the_table(geom: ConvGeometry, algorithm: str) -> None:
    assert NumpyBackend().conv.plan(geom).algorithm == algorithm
    assert NumpyBackend(exact=True).conv.plan(geom).algorithm == "im2col"
    assert NumpyBackend(np.float64).conv.plan(geom).algorithm == "im2col"


@pytest.mark.parametrize("n", [1, 8, 64])
@pytest.mark.parametrize("exact", [False, True])
def test_workspaces_of_vgg_are_bounded(n: int, exact: bool) -> None:
    for c, k, size in VGG:
        plan = NumpyBackend(exact=exact).conv.plan(same(n, c, size, k))
        assert 0 < plan.workspace_bytes <= 64 << 20, str(plan.geometry)


@pytest.mark.parametrize(
    ("n", "rows", "units", "limit"),
    [(1, 1, 1, 1), (5, 7, 3, 1), (5, 7, 3, 10), (5, 7, 3, 21), (5, 7, 3, 50), (2, 56, 56, 244)],
)
def test_pieces_cover_everything_once_within_the_limit(
    n: int, rows: int, units: int, limit: int
) -> None:
    covered = np.zeros((n, rows), int)
    for piece in cut(n, rows, units, limit):
        covered[piece.n0 : piece.n1, piece.p0 : piece.p1] += 1
        whole = piece.rows == rows
        assert piece.images == 1 or whole
        assert piece.images * piece.rows * units <= limit or piece.images * piece.rows == 1
    assert (covered == 1).all()


def test_a_band_beyond_the_image_is_zero() -> None:
    src = np.arange(1.0, 13.0).reshape(1, 1, 3, 4)
    inside = padded_band(Lane(), src, (1, 1), (2, 3))
    assert np.shares_memory(inside, src)
    outside = padded_band(Lane(), src, (-1, 2), (3, 4))
    np.testing.assert_array_equal(outside[0, 0], [[0, 0, 0, 0], [3, 4, 0, 0], [7, 8, 0, 0]])
    assert not padded_band(Lane(), src, (5, 0), (2, 2)).any()


def test_the_backward_window_may_crop() -> None:
    window = Window.backward(ConvGeometry(1, 1, 9, 9, 1, (3, 3), (4, 0), dilation=(1, 2)))
    assert window.pad == (-2, 4)


@pytest.mark.parametrize("points", [(0, 1, -1, 2, -2), (0, Fraction(1, 3), 5, -1, -7)])
def test_toom_cook_convolves_exactly_for_any_points(points: tuple[int | Fraction, ...]) -> None:
    """F(4, 3) in one dimension: A^T (G g * B^T d) is the correlation of d and g."""
    b_t, g_matrix, a_t = toom_cook([Fraction(point) for point in points])
    d, g = np.array([3.0, -1.0, 4.0, 1.0, -5.0, 9.0]), np.array([2.0, -7.0, 1.0])
    want = [float(d[i : i + 3] @ g) for i in range(4)]
    np.testing.assert_allclose(a_t @ ((g_matrix @ g) * (b_t @ d)), want, rtol=1e-9, atol=1e-9)


def test_rotated_filters_are_filters_of_the_rotated_kernel() -> None:
    matrices, kernel = Matrices.build(), normal(3, 3)
    rotated = np.ascontiguousarray(kernel[::-1, ::-1])
    np.testing.assert_allclose(
        matrices.rotated_filters @ kernel.ravel(), matrices.filters @ rotated.ravel(), rtol=1e-5
    )


def passes(backend: CpuBackend, geom: ConvGeometry) -> list[np.ndarray]:
    """The three passes on float32 numbers, in the backend's dtype."""
    x, weight, dy, bias = (
        normal(*shape).astype(backend.dtype)
        for shape in (geom.in_shape, geom.weight_shape, geom.out_shape, (geom.k,))
    )
    y, dx, dw = np.empty_like(dy), np.empty_like(x), np.ones_like(weight)
    plan = backend.conv.plan(geom)
    backend.conv.forward(plan, x, weight, Epilogue(bias), y, None)
    backend.conv.backward_data(plan, dy, weight, dx, None)
    backend.conv.backward_weight(plan, x, dy, dw)
    return [y, dx, dw]


@pytest.mark.parametrize("shared_bytes", [1 << 20, 32 << 20])
@pytest.mark.parametrize(
    "geom",
    [same(20, 16, 16, 16), same(3, 16, 41, 20), same(2, 130, 30, 140), same(6, 200, 9, 100)],
    ids=str,
)
def test_many_pieces_agree_with_the_plain_sums_in_float64(
    geom: ConvGeometry, shared_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces that lanes take, that lanes share, and partial sums of several pieces."""
    monkeypatch.setattr(conv_winograd, "_SHARED_BYTES", shared_bytes)
    assert NumpyBackend().conv.plan(geom).algorithm == "winograd_4x4"
    for fast, plain in zip(passes(NumpyBackend(), geom), passes(NumpyBackend(np.float64), geom)):
        error = float(np.linalg.norm(fast - plain) / np.linalg.norm(plain))
        assert error < 2e-6


def test_filters_are_kept_once_their_version_comes_again() -> None:
    backend, geom = NumpyBackend(), same(1, 16, 8, 16)
    plan = backend.conv.plan(geom)
    x, weight, y = normal(*geom.in_shape), normal(*geom.weight_shape), normal(*geom.out_shape)

    def kept() -> bool:
        return any(array is not None for _, array in plan.cache.values())

    for version, keeps in ((1, False), (2, False), (2, True), (3, False), (None, False)):
        backend.conv.forward(plan, x, weight, Epilogue(), y, version)
        assert kept() == keeps
    backend.conv.forward(plan, x, weight, Epilogue(), y, None)
    assert not kept()


def test_kept_filters_are_used() -> None:
    """With the same version the weights are not read again."""
    backend, geom = NumpyBackend(), same(1, 16, 8, 16)
    plan = backend.conv.plan(geom)
    x, weight, y = normal(*geom.in_shape), normal(*geom.weight_shape), normal(*geom.out_shape)
    for _ in range(2):
        backend.conv.forward(plan, x, weight, Epilogue(), y, 7)
    first = y.copy()
    weight[...] = np.nan
    backend.conv.forward(plan, x, weight, Epilogue(), y, 7)
    np.testing.assert_array_equal(y, first)


def test_what_ops_leave_behind_is_bounded() -> None:
    """Column matrices of these would take 115 MB and 29 MB an image."""
    backend = NumpyBackend(threads=2, exact=True)
    for geom in (same(1, 8, 448, 8), ConvGeometry(2, 16, 224, 224, 4, (3, 3), (1, 1), (2, 2))):
        plan = backend.conv.plan(geom)
        x, weight = normal(*geom.in_shape), normal(*geom.weight_shape)
        y = normal(*geom.out_shape)
        backend.conv.forward(plan, x, weight, Epilogue(), y, None)
        backend.conv.backward_data(plan, y, weight, x, None)
        backend.conv.backward_weight(plan, x, y, weight)
    assert backend.lanes.scratch_bytes() < 16 << 20


def test_one_long_row_is_one_band() -> None:
    """A product too large for one band cannot be cut by rows where there is one row."""
    geom = ConvGeometry(1, 4, 1, 8000, 7, (1, 5), (0, 2))
    x, weight, dy = normal(1, 4, 1, 8000), normal(7, 4, 1, 5), normal(1, 7, 1, 8000)
    backend = NumpyBackend(np.float64)
    plan = backend.conv.plan(geom)
    x, weight, dy = (array.astype(np.float64) for array in (x, weight, dy))
    y, dx, dw = np.empty_like(dy), np.empty_like(x), np.zeros_like(weight)
    backend.conv.forward(plan, x, weight, Epilogue(), y, None)
    backend.conv.backward_data(plan, dy, weight, dx, None)
    backend.conv.backward_weight(plan, x, dy, dw)
    padded = np.pad(x[0, :, 0], [(0, 0), (2, 2)])
    seen = np.stack([padded[:, s : s + 8000] for s in range(5)], axis=1)
    np.testing.assert_allclose(y[0, :, 0], np.tensordot(weight[:, :, 0], seen, 2), rtol=1e-9)
    np.testing.assert_allclose(dw[:, :, 0], np.tensordot(dy[0, :, 0], seen, (1, 2)), rtol=1e-9)
    # The passes are adjoint.
    assert np.isclose((y * dy).sum(), (x * dx).sum(), rtol=1e-9)
