"""The input blob that a device computes from bytes is that of the host, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError
from runtime.backend.base import Backend
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cuda.backend import CudaBackend
from tests.cuda_kernels.works import down, junk

RNG = np.random.default_rng(4)
PIXELS = RNG.integers(0, 256, (5, 3, 7, 9), np.uint8)
OFFSETS = RNG.uniform(0, 255, (5, 3)).astype(np.float32)


def on(backend: Backend, pixels: np.ndarray, offsets: np.ndarray | None, scale: float) -> bytes:
    if isinstance(backend, CudaBackend):
        y = junk(backend, pixels.shape)
        backend.input_batch(pixels, offsets, scale, y)
        return down(backend, y)[0].tobytes()
    host = np.full(pixels.shape, np.nan, np.float32)
    backend.input_batch(pixels, offsets, scale, host)
    return host.tobytes()


@pytest.mark.parametrize("scale", [1.0, 0.017])
def test_bytes_become_pixels_less_offsets_times_scale(emulator: CudaBackend, scale: float) -> None:
    expected = (PIXELS - OFFSETS[:, :, None, None]) * np.float32(scale)
    assert on(emulator, PIXELS, OFFSETS, scale) == expected.tobytes()
    assert on(CpuBackend(), PIXELS, OFFSETS, scale) == expected.tobytes()


def test_floats_without_offsets_are_copied(emulator: CudaBackend) -> None:
    floats = RNG.normal(0, 1, (2, 3, 4, 5)).astype(np.float32)
    assert on(emulator, floats, None, 1.0) == floats.tobytes()
    assert on(CpuBackend(), floats, None, 1.0) == floats.tobytes()


@pytest.mark.parametrize(
    ("pixels", "offsets", "message"),
    [
        (PIXELS[:2], OFFSETS, r"pixels \(2, 3, 7, 9\) and offsets \(5, 3\) for a blob \(5, 3, 7"),
        (PIXELS, OFFSETS[:4], r"and offsets \(4, 3\) for a blob .*; expected the blob's shape"),
        (PIXELS[:4], None, r"pixels \(4, 3, 7, 9\) and offsets none for a blob \(5, 3, 7, 9\)"),
    ],
)
def test_batches_that_do_not_fit(
    emulator: CudaBackend, pixels: np.ndarray, offsets: np.ndarray | None, message: str
) -> None:
    for backend, y in (
        (emulator, junk(emulator, PIXELS.shape)),
        (CpuBackend(), np.empty(PIXELS.shape, np.float32)),
    ):
        with pytest.raises(ShapeError, match=message):
            backend.input_batch(pixels, offsets, 1.0, y)
