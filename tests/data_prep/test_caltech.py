"""Caltech's folders and random splits, from tiny trees of its layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_prep.caltech import open_caltech
from prototxt_gen.errors import DataError
from tests.data_prep.small_trees import COLOURS, write_caltech, write_image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_caltech(tmp_path, 9)


def test_classes_are_folders_and_only_pictures_count(root: Path) -> None:
    data = open_caltech(root)
    assert list(data.images) == sorted(COLOURS)
    assert data.images["cat"] == [f"cat/image_{n:04d}.jpg" for n in range(1, 10)]
    assert open_caltech(data.root) == data
    assert all((data.root / name).is_file() for name in data.images["pig"])


def test_a_split_parts_each_class(root: Path) -> None:
    data = open_caltech(root)
    split = data.split(0, 4, 3)
    for name, files in data.images.items():
        train, test = set(split.train[name]), set(split.test[name])
        assert (len(train), len(test), len(train & test)) == (4, 3, 0)
        assert train | test < set(files)
    rest = data.split(0, 4, None)
    assert rest.train == split.train
    assert all(len(rest.test[name]) == 5 for name in COLOURS)


def test_splits_are_random_and_always_the_same(root: Path) -> None:
    data = open_caltech(root)
    splits = [data.split(number, 4, 3).train["dog"] for number in range(3)]
    assert len({tuple(each) for each in splits}) == 3
    assert [data.split(number, 4, 3).train["dog"] for number in range(3)] == splits
    assert data.split(0, 4, 3, seed=1).train["dog"] != splits[0]
    chosen = data.split(0, 4, 3).train
    places = [[name.partition("/")[2] for name in chosen[label]] for label in COLOURS]
    assert places[0] != places[1]


def test_up_to_so_many_tests(root: Path) -> None:
    assert len(open_caltech(root).split(0, 6, 50).test["cat"]) == 3


def test_mistakes_are_reported(root: Path, tmp_path: Path) -> None:
    data = open_caltech(root)
    with pytest.raises(DataError, match="cat: 9 images; expected more than the 9 to train on"):
        data.split(0, 9, None)
    with pytest.raises(DataError, match="split: 0 training and 1 test images a class"):
        data.split(0, 0, 1)
    with pytest.raises(DataError, match="split: 1 training and 0 test images a class"):
        data.split(0, 1, 0)
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (empty, tmp_path / "absent"):
        with pytest.raises(DataError) as caught:
            open_caltech(path)
        assert str(caught.value) == (
            f"{path}: no Caltech data; expected 101_ObjectCategories or 256_ObjectCategories, or "
            "a folder for each class with its images; unpack the archive there"
        )
    (data.root / "yak").mkdir()
    with pytest.raises(DataError, match=r"yak: no images; expected \*\.jpg"):
        open_caltech(root)
    write_image(root / "256_ObjectCategories" / "a" / "1.jpg", np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match=r"both .*101_ObjectCategories.*; expected one"):
        open_caltech(root)
