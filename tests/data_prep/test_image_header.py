"""Sizes read from headers agree with what the decoder finds, and damage is no trap."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_prep.image_header import ImageHeader, read_header
from tests.data_prep.small_images import photograph


@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_size_and_channels(extension: str, channels: int) -> None:
    image = photograph(13, 21)[:, :, :channels]
    data = cv2.imencode(f".{extension}", image)[1].tobytes()
    expected = "jpeg" if extension == "jpg" else "png"
    assert read_header(data) == ImageHeader(expected, 13, 21, channels)


def test_progressive_jpeg_and_alpha() -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", photograph(30, 20), options)[1].tobytes()
    assert read_header(data) == ImageHeader("jpeg", 30, 20, 3)
    alpha = cv2.imencode(".png", np.zeros((3, 4, 4), np.uint8))[1].tobytes()
    assert read_header(alpha) == ImageHeader("png", 3, 4, 4)


@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_no_prefix_is_a_trap(extension: str) -> None:
    data = cv2.imencode(f".{extension}", photograph(9, 9))[1].tobytes()
    whole = read_header(data)
    assert {read_header(data[:cut]) for cut in range(len(data))} == {None, whole}


def test_other_formats_are_unknown() -> None:
    assert read_header(cv2.imencode(".bmp", photograph(4, 4))[1].tobytes()) is None
    assert read_header(b"\xff\xd8\xff\xd8\xff\xd8") is None
    assert read_header(b"\xff\xd8\xff\xe0\x00\x00\xff\xff") is None
