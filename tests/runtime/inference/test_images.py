"""Predictions of images: paths, bytes and arrays, prepared as a bundle describes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime
from prototxt_gen.errors import DataError, ShapeError, UsageError
from runtime.bundle.preprocessing import GRAY, RGB, Preprocessing
from runtime.inference.images import are_images, prepare
from tests.runtime.bundle.bundles import small_bundle
from tests.runtime.inference.test_model import CLASSES, write

PLAIN = Preprocessing((12, 12), short_side=14, mean_value=(104.0, 117.0, 123.0))


def picture(seed: int, height: int = 20, width: int = 17) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """The file of RGB pixels."""
    return bytes(cv2.imencode(".png", pixels[:, :, ::-1])[1])


def test_the_values_of_a_prepared_image() -> None:
    pixels = picture(1, 12, 14)
    plain = Preprocessing((12, 12), mean_value=(1.0, 2.0, 3.0), scale=0.5)
    got = prepare(pixels, plain)
    want = (pixels[:, 1:13, ::-1].astype(np.float32) - [1, 2, 3]).transpose(2, 0, 1) / 2
    np.testing.assert_array_equal(got, want.astype(np.float32))
    rgb = prepare(pixels, Preprocessing((12, 12), channel_order=RGB))
    np.testing.assert_array_equal(rgb, pixels[:, 1:13].transpose(2, 0, 1))
    gray = prepare(png(pixels), Preprocessing((12, 12), channel_order=GRAY))
    want = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, 1:13]
    np.testing.assert_allclose(gray[0], want, atol=1)  # decoders round the weights differently
    assert prepare(pixels, Preprocessing((12, 12), warp=(12, 12))).shape == (3, 12, 12)
    assert prepare(picture(2), PLAIN).shape == (3, 12, 12)
    one = prepare(pixels[:, :, :1], Preprocessing((12, 12)))
    np.testing.assert_array_equal(one, np.stack([pixels[:, 1:13, 0]] * 3))


def test_what_counts_as_images() -> None:
    assert are_images(["a.png", b"", Path("x"), picture(0)])
    for other in ([], picture(0), [picture(0).astype(np.float32)], [np.zeros((3, 4, 4), np.uint8)]):
        assert not are_images(other)


def test_paths_bytes_and_arrays_give_the_same(tmp_path: Path) -> None:
    small_bundle(tmp_path).write(tmp_path / "b.verydeep")
    pictures = [picture(seed) for seed in range(7)]
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    for path, pixels in zip(paths, pictures):
        path.write_bytes(png(pixels))
    with runtime.load(tmp_path / "b.verydeep") as model:
        want = model.predict(np.stack([prepare(path, PLAIN) for path in paths]))["prob"]
        inputs = (paths, [str(path) for path in paths], pictures, [*map(png, pictures)])
        for images in inputs:
            np.testing.assert_array_equal(model.predict(images)["prob"], want)
        with ThreadPoolExecutor(4) as pool:
            for got in pool.map(lambda images: model.predict(images)["prob"], inputs):
                np.testing.assert_array_equal(got, want)


def test_images_that_cannot_be_predicted(tmp_path: Path) -> None:
    model, weights = write(tmp_path, CLASSES)
    with (
        runtime.load(model, weights) as net,
        pytest.raises(UsageError, match="the preparation of images is unknown"),
    ):
        net.predict([picture(0)])
    with runtime.load(model, weights, preprocessing=PLAIN) as net:
        with pytest.raises(DataError, match=r"absent\.png: cannot be read"):
            net.predict([tmp_path / "absent.png"])
        with pytest.raises(DataError, match="image 1: the image does not decode"):
            net.predict([picture(0), b"GIF89a"])
    with pytest.raises(ShapeError, match="8x9 pixels; expected at least the crop of 12x12"):
        prepare(picture(0, 8, 9), Preprocessing((12, 12)))
    with pytest.raises(ShapeError, match=r"expected .H,W,1. for a net of gray images"):
        prepare(picture(0), Preprocessing((12, 12), channel_order=GRAY))
