"""Convolution kernels where the conformance table is too small: tiles, splits, chunks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from prototxt_gen.errors import UnsupportedError
from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import Epilogue
from runtime.backend.cuda import conv_winograd
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.conv import choose_algorithm
from runtime.backend.cuda.conv_implicit import steps, weight_splits
from runtime.backend.cuda.conv_winograd import Tiling
from tests.cuda_kernels.works import Host, convolve, down, junk, normal, up
from tests.oracle import conv
from tests.oracle.tolerance import assert_close

WINOGRAD = ("winograd_2x2", "winograd_4x4")
# One chain of additions, whose partial sums grow beyond their terms: 2. The transforms enlarge
# rounding errors by their largest entries, but their chains are shorter.
FACTORS = {"implicit_gemm": 2.0, "winograd_2x2": 2.0, "winograd_4x4": 10.0}


@pytest.mark.parametrize("algorithm", FACTORS)
def test_all_passes_of_many_tiles(emulator: CudaBackend, algorithm: str) -> None:
    geom = ConvGeometry(3, 66, 9, 11, 70, (3, 3), (1, 1))
    y, dx, dw = convolve(geom, algorithm)(emulator)
    x, weight, dy, bias = (
        normal(*shape).astype(np.float64)
        for shape in (geom.in_shape, geom.weight_shape, geom.out_shape, (geom.k,))
    )
    factor = FACTORS[algorithm]

    def scale(a: Host, b: Host) -> float:
        return float(np.abs(a).max() * np.abs(b).max())

    want = np.maximum(conv.forward(geom, x, weight, bias), 0.0)
    assert_close("y", y, want, 66 * 9 + 1, scale(x, weight), factor)
    want = conv.backward_data(geom, dy, weight)
    assert_close("dx", dx, want, 70 * 9, scale(dy, weight), factor)
    want = 1.0 + conv.backward_weight(geom, x, dy)
    assert_close("dw", dw, want, 3 * 9 * 11 + 1, scale(x, dy), factor)


@pytest.mark.parametrize("algorithm", FACTORS)
def test_a_filter_of_one_tap_shifts_the_image(emulator: CudaBackend, algorithm: str) -> None:
    geom = ConvGeometry(1, 1, 9, 10, 1, (3, 3), (1, 1))
    x = normal(*geom.in_shape)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    plan = dataclasses.replace(emulator.conv.plan(geom), algorithm=algorithm)
    for r, s in np.ndindex(3, 3):
        weight, y = np.zeros(geom.weight_shape, np.float32), junk(emulator, geom.out_shape)
        weight[0, 0, r, s] = 1.0
        emulator.conv.forward(plan, up(emulator, x), up(emulator, weight), Epilogue(), y, None)
        want = padded[:, :, r : r + 9, s : s + 10]
        assert_close(f"tap {r},{s}", down(emulator, y)[0], want, 1, 4.0, FACTORS[algorithm])


@pytest.mark.parametrize("algorithm", WINOGRAD)
def test_chunks_of_images_are_the_whole(
    emulator: CudaBackend, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    geom = ConvGeometry(5, 6, 8, 7, 5, (3, 3), (1, 1))
    whole = convolve(geom, algorithm)(emulator)
    monkeypatch.setattr(conv_winograd, "_CHUNK_BYTES", 1)
    parts = convolve(geom, algorithm)(emulator)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_array_equal(parts[1], whole[1])
    assert_close("dw", parts[2], whole[2].astype(np.float64), 5 * 56, 16.0, FACTORS[algorithm])


def test_chunks_are_about_equal_and_bounded() -> None:
    # conv1_2 of net D at batch 64: 58 MB an image.
    tiling = Tiling.in_chunks(4, 64, (224, 224), 128)
    assert (tiling.images, tiling.tiles, tiling.ld) == (4, 4 * 56 * 56, 4 * 56 * 56)
    assert tiling.planes * tiling.ld * 128 * 4 <= 256 << 20
    assert Tiling.in_chunks(4, 3, (1000, 1000), 4096).images == 1


def test_the_weights_gradient_is_cut_by_its_geometry_alone() -> None:
    conv1_2 = ConvGeometry(64, 64, 224, 224, 64, (3, 3), (1, 1))
    splits = weight_splits(conv1_2)
    assert splits.chunk % 8 == 0
    assert 1000 <= splits.count * 5 <= 1100  # 5 tiles of 64 x 128
    assert weight_splits(ConvGeometry(1, 64, 14, 14, 64, (3, 3), (1, 1))).count == 1


def test_the_algorithm_is_the_one_with_fewest_multiplications() -> None:
    def chosen(c: int, side: int, **options: object) -> str:
        fields = {"kernel": (3, 3), "pad": (1, 1), **options}
        return choose_algorithm(ConvGeometry(2, c, side, side, 64, **fields))  # type: ignore[arg-type]

    assert chosen(64, 224) == chosen(512, 14) == "winograd_4x4"
    assert chosen(64, 2) == "winograd_2x2"
    assert chosen(64, 1) == "implicit_gemm"
    assert chosen(3, 224) == "implicit_gemm"
    assert chosen(64, 56, stride=(2, 2)) == "implicit_gemm"
    assert chosen(64, 56, kernel=(1, 1), pad=(0, 0)) == "implicit_gemm"
    exact = ConvGeometry(2, 64, 56, 56, 64, (3, 3), (1, 1))
    assert choose_algorithm(exact, exact=True) == "implicit_gemm"


def test_steps_give_the_place_of_a_tap() -> None:
    table = steps(2, (5, 7), (2, 3), (2, 1), in_holes=False)
    assert table.shape == (128, 2)
    assert table.dtype == np.int32
    channel, row, col = 1, 1, 2
    assert table[6 + 3 + 2].tolist() == [channel * 35 + 2 * row * 7 + col, 2 * row << 16 | col]
    assert table[12:].tolist() == [[0, 0x7FFF << 16]] * 116  # below every image
    assert steps(2, (5, 7), (2, 3), (2, 1), in_holes=True)[11].tolist() == [35, 2 << 16 | 2]
    with pytest.raises(UnsupportedError, match="spans 40001x3 pixels; expected at most 32767"):
        steps(1, (5, 7), (2, 3), (40000, 1), in_holes=False)
