"""The batch that the device makes is the one the host makes, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep import philox
from data_prep.transform import TransformSpec
from prototxt_gen.errors import ShapeError
from runtime.backend.cuda.augment import AugmentOps, Crop
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.launcher import Launcher
from tests.cuda_kernels.works import down, junk, up


def images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in sizes]


def drawn(spec: TransformSpec, image: np.ndarray, words: np.ndarray) -> Crop:
    """The crop that the host's transformer draws from an image's words."""
    spare = np.array(image.shape[:2]) - spec.crop_size + 1
    row, column = philox.to_integers(words[1:3], spare).tolist()
    return Crop(row, column, spec.mirror and bool(philox.to_integers(words[3], 2)))


def on_the_host(spec: TransformSpec, batch: list[np.ndarray], words: np.ndarray) -> np.ndarray:
    out = np.empty((len(batch), 3, spec.crop_size, spec.crop_size), np.float32)
    for image, own, target in zip(batch, words, out):
        spec.apply(image, own, target, "image")
    return out


def test_mean_values_on_images_of_any_size(emulator: CudaBackend) -> None:
    spec = TransformSpec(
        True, crop_size=7, mirror=True, scale=0.017, mean_values=(103.9, 116.7, 123.6)
    )
    batch = images((9, 12), (7, 7), (20, 8), (13, 31), (8, 8))
    words = spec.draw(3, 4, 0, np.arange(5))
    crops = [drawn(spec, image, own) for image, own in zip(batch, words)]
    assert {crop.mirror for crop in crops} == {True, False}
    y = junk(emulator, (5, 3, 7, 7))
    offsets = np.tile(np.array(spec.mean_values, np.float32), (5, 1))
    ops = AugmentOps(Launcher(emulator.driver, emulator.device_memory))
    ops.augment(batch, crops, offsets, y, scale=spec.scale)
    np.testing.assert_array_equal(down(emulator, y)[0], on_the_host(spec, batch, words))


def test_a_mean_image_is_read_where_the_crop_lies(emulator: CudaBackend) -> None:
    batch = images(*[(10, 11)] * 6)
    mean = np.random.default_rng(9).uniform(0, 255, (3, 10, 11)).astype(np.float32)
    spec = TransformSpec(True, crop_size=6, mirror=True, mean_image=mean)
    words = spec.draw(3, 4, 0, np.arange(6))
    crops = [drawn(spec, image, own) for image, own in zip(batch, words)]
    y = junk(emulator, (6, 3, 6, 6))
    ops = AugmentOps(Launcher(emulator.driver, emulator.device_memory))
    ops.augment(batch, crops, np.zeros((6, 3), np.float32), y, up(emulator, mean))
    np.testing.assert_array_equal(down(emulator, y)[0], on_the_host(spec, batch, words))


def test_each_image_has_its_own_colour_shift(emulator: CudaBackend) -> None:
    batch = [np.full((5, 5, 3), 100, np.uint8)] * 2
    offsets = np.array([[1, 2, 3], [-1, -2, -3]], np.float32)
    y = junk(emulator, (2, 3, 5, 5))
    ops = AugmentOps(Launcher(emulator.driver, emulator.device_memory))
    ops.augment(batch, [Crop(0, 0, False)] * 2, offsets, y)
    got = down(emulator, y)[0]
    np.testing.assert_array_equal(got, np.broadcast_to(100 - offsets[:, :, None, None], got.shape))


def test_what_does_not_fit_is_refused(emulator: CudaBackend) -> None:
    y, ops = (
        junk(emulator, (1, 3, 5, 5)),
        AugmentOps(Launcher(emulator.driver, emulator.device_memory)),
    )
    zeros = np.zeros((1, 3), np.float32)
    with pytest.raises(ShapeError, match=r"cut at row 2, column 0; expected 3 channels, and 5x5"):
        ops.augment(images((6, 6)), [Crop(2, 0, False)], zeros, y)
    with pytest.raises(ShapeError, match=r"2 images, 1 crops and offsets \(1, 3\)"):
        ops.augment(images((6, 6), (6, 6)), [Crop(0, 0, False)], zeros, y)
    with pytest.raises(ShapeError, match=r"expected the size of the mean image, \(3, 5, 6\)"):
        mean = up(emulator, np.zeros((3, 5, 6), np.float32))
        ops.augment(images((6, 6)), [Crop(0, 0, False)], zeros, y, mean)
