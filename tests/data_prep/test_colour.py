"""Colour components and the shift made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.colour import PAPER_STD, pca_of, read_pca, shift_of, write_pca
from prototxt_gen.errors import DataError
from prototxt_gen.sidecar import ColourPca


def test_components_rebuild_the_covariance() -> None:
    rng = np.random.default_rng(2)
    factor = rng.normal(size=(3, 3)) * 60
    covariance = factor @ factor.T
    pca = pca_of(covariance)
    values, rows = np.array(pca.eigenvalues), np.array(pca.eigenvectors)
    assert (np.diff(values) <= 0).all()
    assert all(row[np.abs(row).argmax()] > 0 for row in rows)
    np.testing.assert_allclose(rows.T @ np.diag(values * 255) @ rows, covariance, rtol=1e-9)


def test_gray_images_shift_all_channels_alike() -> None:
    pca = pca_of(np.full((3, 3), 5000.0))
    drawn = np.random.default_rng(0).normal(size=(20_000, 3))
    levels = shift_of(pca, PAPER_STD, drawn)
    np.testing.assert_allclose(levels[:, 0], levels[:, 1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(levels[:, 0], levels[:, 2], rtol=1e-4, atol=1e-4)
    # One component, of variance 15,000: 0.1 * 15,000 / 255 levels along (1, 1, 1) / sqrt(3).
    assert levels[:, 0].std() == pytest.approx(0.1 * 15_000 / 255 / np.sqrt(3), rel=0.03)


def test_the_shift_by_hand() -> None:
    pca = ColourPca((30.0, 20.0, 10.0), ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)))
    levels = shift_of(pca, 0.5, np.array([1.0, 2.0, -3.0]))
    assert levels.tolist() == [15.0, -15.0, 20.0]
    assert levels.dtype == np.float32


def test_files_round_trip(tmp_path: Path) -> None:
    pca = pca_of(np.diag([100.0, 200.0, 300.0]))
    write_pca(tmp_path / "pca.json", pca, pixels=12)
    assert read_pca(tmp_path / "pca.json") == pca
    assert json.loads((tmp_path / "pca.json").read_text())["pixels"] == 12
    edited = (tmp_path / "pca.json").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "pca.json").write_bytes(b"\xef\xbb\xbf" + edited)
    assert read_pca(tmp_path / "pca.json") == pca


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "{}",
        '{"eigenvalues": [1, 2], "eigenvectors": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}',
        '{"eigenvalues": [1, 2, NaN], "eigenvectors": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}',
        '{"eigenvalues": [1, 2, 3], "eigenvectors": 5}',
        '{"eigenvalues": [1, 2, 1%s], "eigenvectors": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}'
        % ("0" * 400),
        '{"eigenvalues": [1, 2, 1%s]}' % ("0" * 100_000),
        "[" * 100_000,
        "\0",
    ],
    ids=lambda text: text[:60],
)
def test_other_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "pca.json").write_text(text)
    with pytest.raises(DataError, match=r"pca.json: not a file of colour components .*--pca FILE"):
        read_pca(tmp_path / "pca.json")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "pca.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"pca.json: not a file of colour components"):
        read_pca(tmp_path / "pca.json")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no.json: the colour components cannot be read: No such"):
        read_pca(tmp_path / "no.json")


@pytest.mark.parametrize(
    "value",
    ["9" * 400, "1e999", "[" * 50_000, '"x"', "null", "{}", "-" + "9" * 19, "Infinity"],
    ids=lambda value: value[:10],
)
def test_numbers_of_any_kind(value: str, tmp_path: Path) -> None:
    rows = "[[1, 0, 0], [0, 1, 0], [0, 0, 1]]"
    for text in (
        f'{{"eigenvalues": [1, 2, {value}], "eigenvectors": {rows}}}',
        f'{{"eigenvalues": [1, 2, 3], "eigenvectors": [[1, 0, {value}], [0, 1, 0], [0, 0, 1]]}}',
    ):
        (tmp_path / "pca.json").write_text(text)
        with pytest.raises(DataError, match=r"not a file of colour components") as caught:
            read_pca(tmp_path / "pca.json")
        assert len(str(caught.value)) < 1000


def test_a_sidecar_may_not_name_a_device(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="/dev/zero: the colour components cannot be read: a dev"):
        read_pca("/dev/zero")
    (tmp_path / "big").write_text(" " * (2 << 20))
    with pytest.raises(DataError, match="larger than the 1048576 bytes"):
        read_pca(tmp_path / "big")
