"""Convolution on tensor cores: exact where its operands are, rounded where they are not."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError
from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import Epilogue
from runtime.backend.cuda import conv_tensor
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.conv import choose_algorithm
from runtime.backend.cuda.conv_pack import PRECISIONS, Grid, Packer
from runtime.backend.cuda.launcher import Launcher
from runtime.backend.registry import create_backend
from tests.cuda_kernels.works import Host, convolve, down, emulated, junk, normal, up
from tests.oracle import conv

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

# Half a unit in the last place: tf32 keeps 11 bits, bf16 keeps 8.
ROUNDING = {"tf32": 2.0**-11, "bf16": 2.0**-8}

GEOMETRIES = [
    ConvGeometry(2, 20, 7, 9, 18, (3, 3), (1, 1)),  # channels that do not fill their chunks
    ConvGeometry(3, 16, 9, 8, 70, (3, 3), (1, 1)),  # two tiles of outputs, two of pixels
    ConvGeometry(1, 33, 4, 5, 16, (1, 1)),
    ConvGeometry(1, 16, 9, 8, 17, (3, 2), (2, 1), dilation=(2, 3)),
    ConvGeometry(2, 16, 6, 6, 16, (3, 3)),
]


def whole_numbers(shape: tuple[int, ...], seed: int) -> Host:
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("geom", GEOMETRIES, ids=str)
def test_whole_numbers_are_exact(emulator: CudaBackend, geom: ConvGeometry, precision: str) -> None:
    x, weight, dy = (
        whole_numbers(shape, i)
        for i, shape in enumerate((geom.in_shape, geom.weight_shape, geom.out_shape))
    )
    plan = dataclasses.replace(emulator.conv.plan(geom), algorithm=f"tensor_{precision}")
    y, dx = junk(emulator, geom.out_shape), junk(emulator, geom.in_shape)
    dw = up(emulator, np.full(geom.weight_shape, 5.0, np.float32))
    emulator.conv.forward(plan, up(emulator, x), up(emulator, weight), Epilogue(), y, None)
    emulator.conv.backward_data(plan, up(emulator, dy), up(emulator, weight), dx, None)
    emulator.conv.backward_weight(plan, up(emulator, x), up(emulator, dy), dw)
    np.testing.assert_array_equal(down(emulator, y)[0], conv.forward(geom, x, weight))
    np.testing.assert_array_equal(down(emulator, dx)[0], conv.backward_data(geom, dy, weight))
    np.testing.assert_array_equal(down(emulator, dw)[0], 5 + conv.backward_weight(geom, x, dy))


@pytest.mark.parametrize("precision", ROUNDING)
def test_other_numbers_are_rounded_once(emulator: CudaBackend, precision: str) -> None:
    geom = ConvGeometry(2, 24, 6, 7, 20, (3, 3), (1, 1))
    y, dx, dw = convolve(geom, f"tensor_{precision}")(emulator)
    x, weight, dy, bias = (
        normal(*shape).astype(np.float64)
        for shape in (geom.in_shape, geom.weight_shape, geom.out_shape, (geom.k,))
    )
    wanted = {
        "y": (y, np.maximum(conv.forward(geom, x, weight, bias), 0.0), x, weight, 24 * 9),
        "dx": (dx, conv.backward_data(geom, dy, weight), dy, weight, 20 * 9),
        "dw": (dw, 1.0 + conv.backward_weight(geom, x, dy), x, dy, 2 * 6 * 7),
    }
    for what, (got, want, a, b, length) in wanted.items():
        # Each factor of each product is off by up to the rounding; the errors add up like a walk.
        size = float(np.abs(a).max() * np.abs(b).max())
        allowed = 2 * ROUNDING[precision] * length**0.5 * size
        error = float(np.abs(got - want).max())
        assert error <= allowed, f"{what}: off by {error:.3g}, allowed {allowed:.3g}"
        # ... and it is this precision that was at work, not fp32.
        assert error > 1e-3 * allowed, f"{what}: off by {error:.3g} only"


@pytest.mark.parametrize("precision", ROUNDING)
def test_packed_images_have_a_margin_of_zeros(emulator: CudaBackend, precision: str) -> None:
    kind = PRECISIONS[precision]
    grid = Grid.with_margin(3, (4, 5), (1, 2))
    packer = Packer(Launcher(emulator.driver, emulator.device_memory), kind)
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5) + 1.0
    words = packer.image_words(grid)
    packed = emulator.memory.view(
        emulator.memory.empty(2 * words, np.dtype(np.uint32)), 0, (2, words)
    )
    packer.images(grid, up(emulator, x), 2, packed)
    raw = down(emulator, packed)[0]
    if precision == "bf16":
        values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = raw.view(np.float32)
    channels = kind.chunks(3) * kind.chunk
    want = np.zeros((2, 6, 9, channels), np.float32)
    want[:, 1:5, 2:7, :3] = x.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(values.reshape(want.shape), want)


@pytest.mark.parametrize("precision", ROUNDING)
def test_chunks_of_images_are_the_whole(
    emulator: CudaBackend, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    geom = ConvGeometry(5, 6, 8, 7, 5, (3, 3), (1, 1))
    whole = convolve(geom, f"tensor_{precision}")(emulator)
    monkeypatch.setattr(conv_tensor, "_CHUNK_BYTES", 1)
    parts = convolve(geom, f"tensor_{precision}")(emulator)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_array_equal(parts[1], whole[1])
    np.testing.assert_allclose(parts[2], whole[2], rtol=0, atol=1e-4)


def test_the_workspace_has_the_size_of_the_plan() -> None:
    geom = ConvGeometry(2, 32, 20, 20, 32, (3, 3), (1, 1))
    with emulated() as (backend, _):
        plan = dataclasses.replace(CudaBackend(backend.driver, "bf16").conv.plan(geom))
        assert plan.algorithm == "tensor_bf16"
        x, dw = up(backend, normal(*geom.in_shape)), up(backend, normal(*geom.weight_shape))
        backend.conv.backward_weight(plan, x, up(backend, normal(*geom.out_shape)), dw)
        used = backend.device_memory.workspace_bytes
        assert plan.workspace_bytes <= used <= plan.workspace_bytes + 4096


def test_tensor_cores_serve_where_they_are_asked_for() -> None:
    geom = ConvGeometry(2, 64, 56, 56, 64, (3, 3), (1, 1))
    assert choose_algorithm(geom, "tf32") == "tensor_tf32"
    assert choose_algorithm(geom, "fp32") == "winograd_4x4"
    for field in ({"c": 3}, {"stride": (2, 2)}, {"group": 2}, {"pad": (3, 3)}):
        other = dataclasses.replace(geom, **field)
        assert choose_algorithm(other, "bf16") in ("implicit_gemm", "winograd_4x4")
    assert choose_algorithm(dataclasses.replace(geom, kernel=(1, 1), pad=(0, 0)), "bf16") == (
        "tensor_bf16"
    )


def test_precisions_that_are_not_there_are_refused() -> None:
    with pytest.raises(DeviceError, match="precision is 'fp8'; expected one of fp32, tf32, bf16"):
        create_backend("emu", precision="fp8")
    with emulated() as (backend, _):
        old = dataclasses.replace(backend.driver.info, compute_capability=(7, 5))
        backend.driver._driver.info = old
        with pytest.raises(DeviceError, match="is sm_75; expected sm_80 or newer; use precision f"):
            CudaBackend(backend.driver, precision="bf16")
