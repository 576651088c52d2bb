"""Means and colour components against numpy over all pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep import datum
from data_prep.colour import pca_of
from data_prep.datum import rescale_short_side
from data_prep.image_mean import MeanOptions, compute_image_mean
from data_prep.lmdb_io import Reader
from prototxt_gen.errors import DataError
from tests.data_prep.small_images import photograph

MakeDb = Callable[..., Path]


def test_images_of_one_size(make_db: MakeDb) -> None:
    images = [photograph(9, 12, seed) for seed in range(70)]
    with Reader(make_db(images, encoded=False)) as reader:
        found = compute_image_mean(reader)
    stacked = np.stack(images).astype(np.float64)
    assert (found.records, found.pixels) == (70, 70 * 108)
    np.testing.assert_allclose(found.mean, stacked.mean(axis=0).transpose(2, 0, 1), rtol=1e-12)
    pixels = stacked.reshape(-1, 3)
    np.testing.assert_allclose(found.pixel, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(pixels.T, bias=True), rtol=1e-9)
    expected = pca_of(np.cov(pixels.T, bias=True))
    np.testing.assert_allclose(found.pca().eigenvalues, expected.eigenvalues, rtol=1e-9)


def test_images_of_varying_size_have_a_mean_pixel_over_all_pixels(make_db: MakeDb) -> None:
    images = [photograph(9 + seed % 3, 12, seed) for seed in range(40)]
    with Reader(make_db(images, encoded=False)) as reader:
        found = compute_image_mean(reader)
        cropped = compute_image_mean(reader, MeanOptions(short_side=8, crop=6))
    assert found.mean is None
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    np.testing.assert_allclose(found.pixel, pixels.mean(axis=0), rtol=1e-12)
    centres = []
    for image in images:
        scaled = rescale_short_side(image, 8)
        row, column = (scaled.shape[0] - 6) // 2, (scaled.shape[1] - 6) // 2
        centres.append(scaled[row : row + 6, column : column + 6])
    expected = np.stack(centres).mean(axis=0).transpose(2, 0, 1)
    np.testing.assert_allclose(cropped.mean, expected, rtol=1e-12)


@pytest.mark.parametrize("encoded", [False, True])
def test_threads_change_nothing(make_db: MakeDb, encoded: bool) -> None:
    images = [photograph(10, 10, seed) for seed in range(100)]
    with Reader(make_db(images, encoded=encoded)) as reader:
        one, many = (compute_image_mean(reader, MeanOptions(jobs=jobs)) for jobs in (1, 4))
    np.testing.assert_array_equal(one.mean, many.mean)
    np.testing.assert_array_equal(one.covariance, many.covariance)


def test_floats(make_db: MakeDb) -> None:
    arrays = [np.random.default_rng(n).normal(size=(2, 3, 4)) for n in range(5)]
    values = [datum.from_array(array, 0).SerializeToString() for array in arrays]
    with Reader(make_db(values)) as reader:
        found = compute_image_mean(reader)
    np.testing.assert_allclose(found.mean, np.mean(arrays, axis=0), atol=1e-6)
    with pytest.raises(DataError, match="colour components of 2 channels; expected 3; use a data"):
        found.pca()


def test_progress(make_db: MakeDb) -> None:
    told: list[tuple[int, int]] = []
    with Reader(make_db([photograph(5, 5)] * 70, encoded=False)) as reader:
        compute_image_mean(reader, progress=lambda done, total: told.append((done, total)))
    assert told == [(32, 70), (64, 70), (70, 70)]


def test_records_that_cannot_be_averaged(make_db: MakeDb) -> None:
    gray = datum.from_array(np.zeros((1, 4, 4), np.uint8), 0).SerializeToString()
    colour = datum.from_array(np.zeros((3, 4, 4), np.uint8), 0).SerializeToString()
    broken = datum.from_encoded(b"no", 0).SerializeToString()
    for values, words in (
        (
            [colour, gray],
            r"record 00000001_image1.jpg: 1 channels of uint8; expected 3 as in the fi",
        ),
        ([colour] * 32 + [gray], r"records up to 00000032_image32.jpg: 1 channels; expected 3"),
        ([colour, broken], r"record 00000001_image1.jpg: the image does not decode"),
    ):
        path = make_db(values, name=str(len(words)))
        with Reader(path) as reader, pytest.raises(DataError, match=words):
            compute_image_mean(reader)
    with (
        Reader(make_db([colour], name="crop")) as reader,
        pytest.raises(
            DataError, match=r"an image of 4x4; expected at least the crop of 5; use --s"
        ),
    ):
        compute_image_mean(reader, MeanOptions(crop=5))
    with pytest.raises(
        DataError, match="short_side -1, crop 0, mode 'native'; expected sizes of 0"
    ):
        MeanOptions(short_side=-1)
