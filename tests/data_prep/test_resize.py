"""Sizes after rescaling, and what the pixels become."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.datum import rescale_short_side, short_side_size, warp
from prototxt_gen.errors import DataError
from tests.data_prep.small_images import photograph


@pytest.mark.parametrize(
    ("height", "width", "short_side", "expected"),
    [
        (375, 500, 256, (256, 341)),  # 341.33
        (500, 333, 256, (384, 256)),  # 384.38
        (100, 101, 50, (50, 51)),  # 50.5 rounds up
        (256, 300, 256, (256, 300)),
        (10, 1000, 20, (20, 2000)),
        (1, 1, 224, (224, 224)),
    ],
)
def test_short_side_size(
    height: int, width: int, short_side: int, expected: tuple[int, int]
) -> None:
    assert short_side_size(height, width, short_side) == expected
    assert short_side_size(width, height, short_side) == expected[::-1]


def test_halving_averages_pixels() -> None:
    image = photograph(40, 60)
    blocks = image.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    assert np.abs(rescale_short_side(image, 20) - blocks).max() <= 0.5


def test_a_flat_image_stays_flat_and_gray_keeps_its_axis() -> None:
    flat = np.full((30, 50, 1), 77, np.uint8)
    for short_side in (13, 30, 71):
        scaled = rescale_short_side(flat, short_side)
        assert min(scaled.shape[:2]) == short_side
        assert scaled.shape[2] == 1
        assert (scaled == 77).all()


def test_the_same_size_is_the_same_image() -> None:
    image = photograph(20, 30)
    assert rescale_short_side(image, 20) is image
    assert warp(image, 20, 30) is image


def test_a_transposed_view_is_resized_as_its_copy() -> None:
    planes = np.ascontiguousarray(photograph(20, 30).transpose(2, 0, 1))
    view = planes.transpose(1, 2, 0)
    np.testing.assert_array_equal(rescale_short_side(view, 11), rescale_short_side(view.copy(), 11))


def test_warp_interpolates_between_pixel_centres() -> None:
    ramp = np.array([[0, 100]], np.uint8)[:, :, None]
    assert warp(ramp, 1, 4)[0, :, 0].tolist() == [0, 25, 75, 100]


def test_sizes_above_the_limit_of_pixels() -> None:
    """A thin image grows without bound when its short side does."""
    thin = np.zeros((1, 60000, 3), np.uint8)
    with pytest.raises(DataError, match=r"resize: a size of 2240x134400000; expected at .* pixels"):
        rescale_short_side(thin, 2240)
    with pytest.raises(DataError, match="in all, from 1x60000"):
        warp(thin, 1 << 20, 1 << 20)


def test_pixels_that_cannot_be_resized() -> None:
    with pytest.raises(DataError, match=r"k: resizing an image of shape \(4, 4, 3\), bool, to"):
        warp(np.zeros((4, 4, 3), np.bool_), 2, 2, "k")


def test_warp_to_nothing() -> None:
    with pytest.raises(DataError, match="resize: a size of 0x5; expected at least 1x1"):
        warp(photograph(4, 4), 0, 5)
