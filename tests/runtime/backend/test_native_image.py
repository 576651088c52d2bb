"""Crops by the compiled kernels: numpy's numbers, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.datum import write_crop
from runtime.backend.cpu.native_image import NativeImage, image_kernel
from tests.runtime.backend.native_kernels import each_set, needs_kernels, opened


@each_set
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("width", [1, 17, 70])
def test_the_same_bits_as_numpy(
    isa: str, dtype: type, channels: int, mirror: bool, width: int
) -> None:
    random = np.random.default_rng(width)
    whole = (255 * random.random((40, 90, channels))).astype(dtype)
    crop = whole[3 : 3 + 21, 5 : 5 + width]
    pixels = random.standard_normal((channels, 40, 90)).astype(np.float32)
    mean_image = pixels[:, 3 : 3 + 21, 5 : 5 + width]
    offsets = np.array([104.007, 0.0, 122.7, 99.1], np.float32)[:channels]
    kernel = NativeImage(opened(isa, 1))
    for given in (None, offsets):
        for mean in (None, mean_image):
            for scale in (1.0, 0.00390625, 0.017):
                want, got = (np.full((channels, 21, width), np.nan, np.float32) for _ in range(2))
                write_crop(crop, mirror, given, mean, scale, want)
                kernel(crop, mirror, given, mean, scale, got)
                assert want.tobytes() == got.tobytes()


@needs_kernels
def test_arrays_that_are_not_as_expected_are_copied() -> None:
    kernel = image_kernel()
    assert kernel is not None
    planes = np.random.default_rng(0).integers(0, 256, (3, 12, 9))
    crop = planes.transpose(1, 2, 0)  # int64, channels not interleaved
    mean = np.random.default_rng(1).standard_normal((3, 12, 18))[:, :, ::2]
    want = np.empty((3, 12, 9), np.float32)
    wide = np.empty((3, 12, 18), np.float32)
    write_crop(crop, True, None, mean.astype(np.float32), 0.5, want)
    kernel(crop, True, None, mean, 0.5, wide[:, :, ::2])
    assert want.tobytes() == wide[:, :, ::2].tobytes()
