"""Detector: crops of windows, resized, with their context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import runtime.pycaffe as caffe
from prototxt_gen.errors import UnsupportedError
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import DEPLOY

NET = DEPLOY.replace("dim: 6 dim: 8", "dim: 10 dim: 10")


def test_windows_are_warped_and_classified(write: Write, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    cv2.imwrite(str(tmp_path / "b.png"), pixels[::-1])
    made = caffe.Detector(
        write(NET), None, np.array([1.0, 2.0, 3.0]), raw_scale=255, channel_swap=(2, 1, 0)
    )
    windows = [np.array([2, 3, 12, 13]), (0, 0, 20, 30)]
    result = made.detect_windows([("a.png", windows), ("b.png", windows[:1]), ("b.png", [])])
    assert [(each["filename"], list(each["window"])) for each in result] == [
        ("a.png", [2, 3, 12, 13]),
        ("a.png", [0, 0, 20, 30]),
        ("b.png", [2, 3, 12, 13]),
    ]
    crop = pixels[2:12, 3:13].transpose(2, 0, 1) - np.array([1.0, 2.0, 3.0])[:, None, None]
    expected = made.forward_all(data=crop[None])["prob"][0]
    np.testing.assert_allclose(result[0]["prediction"], expected, rtol=1e-4)
    assert made.detect_windows([]) == []


def test_context_grows_the_window(write: Write) -> None:
    made = caffe.Detector(write(NET), None, context_pad=2)
    image = np.zeros((40, 40, 3), np.float32)
    image[15:25, 15:25] = 1
    crop = made.crop(image, (15, 15, 25, 25))
    assert crop.shape == (10, 10, 3)
    assert crop[3:7, 3:7].min() > 0.8  # the window fills what context_pad leaves
    assert crop[0].max() == crop[:, -1].max() == 0
    assert made.crop(image, (15, 15, 25, 25)).mean() == pytest.approx(0.3, abs=0.06)


def test_outside_of_the_image_is_the_mean(write: Write) -> None:
    mean = np.array([51.0, 102.0, 255.0])
    made = caffe.Detector(
        write(NET), None, mean, raw_scale=255, channel_swap=(2, 1, 0), context_pad=3
    )
    crop = made.crop(np.zeros((30, 30, 3), np.float32), (0, 0, 10, 10))
    np.testing.assert_allclose(crop[0, 0], [1, 0.4, 0.2], rtol=1e-6)
    assert not crop[5:, 5:].any()
    inside = made.transformer.preprocess("data", crop)
    assert inside[:, 0, 0] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("window", [(0, 0, 1, 1), (0, 0, 12, 16), (11, 15, 12, 16), (3, 0, 9, 2)])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_windows_anywhere(write: Write, window: tuple[int, ...], pad: int) -> None:
    made = caffe.Detector(write(NET), None, context_pad=pad)
    crop = made.crop(np.full((12, 16, 3), 0.5, np.float32), window)
    assert crop.max() == 0.5
    assert crop.shape == ((10, 10, 3) if pad else (*np.subtract(window[2:], window[:2]), 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: d.crop(np.zeros((5, 5, 3)), (2, 2, 2, 4)), r"window \(2, 2, 2, 4\) of an image"),
        (lambda d: d.crop(np.zeros((5, 5, 3)), (6, 0, 9, 4)), "of 5x5; expected ymin, xmin"),
        (lambda d: d.crop(np.zeros((5, 5, 3)), (-3, 0, 0, 4)), "of a part of it"),
        (lambda d: d.configure_crop(5), "context_pad 5; expected .* below half of .* width 10"),
    ],
)
def test_windows_outside_of_the_image(write: Write, call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(caffe.Detector(write(NET), None))


def test_selective_search_is_not_offered(write: Write) -> None:
    with pytest.raises(UnsupportedError, match=r"MATLAB; expected windows .* to detect_windows"):
        caffe.Detector(write(NET), None).detect_selective_search(["a.jpg"])
