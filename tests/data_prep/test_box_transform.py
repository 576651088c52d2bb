"""Boxes must land where the pixels land."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep import philox
from data_prep.boxes import Placement, to_centres, to_corners
from tests.data_prep.small_images import transform

RNG = np.random.default_rng(3)


def words(sample: int) -> philox.Words:
    return philox.words(7, 1, 0, sample, 8)


def test_centres_and_corners_are_each_others_inverse() -> None:
    corners = np.sort(RNG.uniform(0, 50, (9, 2, 2)), axis=1).reshape(9, 4)
    np.testing.assert_allclose(to_corners(to_centres(corners)), corners, atol=1e-12)
    np.testing.assert_array_equal(to_centres(np.array([2.0, 4.0, 10.0, 5.0])), [6, 4.5, 8, 1])
    assert to_corners(np.array([5.0, 5.0, -2.0, 4.0])).tolist() == [5, 3, 5, 7]


def test_a_placement_by_hand() -> None:
    """Twice as large, cut from column 10 and row 4 on, 32 wide, mirrored."""
    placed = Placement(2, 2, 10, 4, 32, mirror=True)
    box = np.array([8.0, 5.0, 12.0, 9.0])
    # Columns 16 to 24, less 10: 6 to 14; mirrored 18 to 26. Rows 10 to 18, less 4: 6 to 14.
    assert placed.to_crop(box).tolist() == [18, 6, 26, 14]
    assert box.tolist() == [8, 5, 12, 9]


@pytest.mark.parametrize("short_side", [None, (40, 40), (36, 60)])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_the_way_to_the_crop_and_back(
    short_side: tuple[int, int] | None, mirror: bool, train: bool
) -> None:
    spec = transform(train=train, crop_size=32, mirror=mirror, short_side=short_side)
    box = np.array([[3.0, 5.0, 20.0, 31.5]])
    seen = set()
    for sample in range(30):
        placed = spec.placement(48, 61, words(sample))
        np.testing.assert_allclose(placed.to_image(placed.to_crop(box)), box, atol=1e-9)
        seen.add((placed.left, placed.top, placed.mirror))
    assert (len(seen) > 1) == (train or mirror)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("short_side", [None, (48, 48), (40, 90)])
def test_a_painted_rectangle_moves_with_its_image(
    train: bool, short_side: tuple[int, int] | None
) -> None:
    """The transform of the pixels themselves is the judge: the paint's edges, to half a pixel."""
    spec = transform(train=train, crop_size=36, mirror=True, short_side=short_side)
    for sample in range(25):
        image = np.zeros((48, 60, 1), np.uint8)
        image[20:29, 24:38] = 200
        out = np.empty((1, 36, 36), np.float32)
        spec.apply(image, words(sample), out, "test")
        box = spec.placement(48, 60, words(sample)).to_crop(np.array([24.0, 20, 38, 29]))
        inside = np.clip(box, 0, 36)
        bright = out[0] / 200
        # The paint's mass along either axis is the box's extent inside the crop.
        area = (inside[2] - inside[0]) * (inside[3] - inside[1])
        assert bright.sum() == pytest.approx(area, rel=0.12, abs=6)
        if area > 40:
            rows, columns = np.flatnonzero(bright.max(1) > 0.5), np.flatnonzero(bright.max(0) > 0.5)
            edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(edges, inside, atol=1.01)


def test_without_rescaling_the_crop_is_exact() -> None:
    spec = transform(train=True, crop_size=16, mirror=True)
    for sample in range(20):
        image = np.zeros((40, 40, 1), np.uint8)
        image[14:26, 15:24] = 1
        out = np.empty((1, 16, 16), np.float32)
        spec.apply(image, words(sample), out, "test")
        box = spec.placement(40, 40, words(sample)).to_crop(np.array([15.0, 14, 24, 26]))
        x0, y0, x1, y1 = np.clip(box, 0, 16).astype(int)
        wanted = np.zeros((16, 16))
        wanted[y0:y1, x0:x1] = 1
        np.testing.assert_array_equal(out[0], wanted)
