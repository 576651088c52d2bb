"""Baselines and pictures, which need no net."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.box_database import write_boxes
from data_prep.convert_imageset import ConvertOptions, convert
from data_prep.ilsvrc import open_ilsvrc
from prototxt_gen.errors import DataError
from runtime.paper.localisation.baselines import centre_boxes, random_boxes, training_boxes
from runtime.paper.localisation.overlap import correct_boxes
from runtime.paper.localisation.pictures import draw_boxes, random_sample, worst_errors
from runtime.paper.localisation.truth import Truth, read_truth
from tests.runtime.paper.localisation.toy_boxes import SHAPES, write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("set") / "set")


@pytest.fixture(scope="module")
def truth(tree: Path) -> Truth:
    return read_truth(tree)


def test_training_boxes_are_fractions_of_their_images(tree: Path, tmp_path: Path) -> None:
    """Stored at another size or not: fractions stay."""
    opened = open_ilsvrc(tree)
    options = ConvertOptions(short_side=11, encoded=True)
    convert(tree, opened.val_list(), tmp_path / "images", options)
    write_boxes(tmp_path / "images", opened, tmp_path / "boxes")
    found = training_boxes(tmp_path / "images", tmp_path / "boxes")
    # The larger of two boxes is the target; every other image has two.
    taught = [((2, 3, 14, 18), (5, 6, 20, 21))[index % 2] for index in range(7)]
    for row, (box, index) in enumerate(zip(taught, range(7))):
        height, width = SHAPES[index % 3]
        wanted = np.array(box) / [width, height, width, height]
        np.testing.assert_allclose(found[row], wanted, rtol=1e-6)


def test_the_centre_box_has_the_mean_size(truth: Truth) -> None:
    trained = np.array([[0.0, 0.1, 0.5, 0.7], [0.5, 0.1, 0.8, 0.3]])
    found = centre_boxes(truth, trained)
    # Mean width 0.4, mean height 0.4, around (0.5, 0.5).
    for box, (height, width) in zip(found, truth.sizes):
        np.testing.assert_allclose(
            box, [0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height], rtol=1e-12
        )


def test_random_boxes_are_other_images_boxes_and_the_same_every_time(truth: Truth) -> None:
    trained = np.linspace(0, 0.9, 20).reshape(5, 4)
    first, again, other = (random_boxes(truth, trained, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    height, width = truth.sizes[0]
    relative = first[0] / [width, height, width, height]
    assert np.isclose(trained, relative).all(axis=1).sum() == 1


def test_true_boxes_are_correct(truth: Truth) -> None:
    boxes = np.array([each[0] for each in truth.boxes])
    assert correct_boxes(boxes, truth.boxes).all()
    assert not correct_boxes(boxes + 50, truth.boxes).any()


def test_a_picture_shows_true_and_predicted_boxes(truth: Truth, tmp_path: Path) -> None:
    """Right boxes are drawn in blue, wrong ones in red, true ones in green."""
    boxes = np.array([each[0] for each in truth.boxes])
    counts = {}
    for name, drawn in (("right", boxes + 0.5), ("wrong", boxes + 9.0)):
        correct = correct_boxes(drawn, truth.boxes)
        path = draw_boxes(truth, drawn, correct, tmp_path / f"{name}.png", "title")
        blue, green, red = (cv2.imread(str(path))[:, :, c].astype(int) for c in range(3))
        counts[name] = (
            ((blue > 200) & (red < 80)).sum(),
            ((red > 180) & (blue < 90) & (green < 60)).sum(),
        )
        assert ((green > 180) & (red < 90) & (blue < 90)).sum() > 50
    assert counts["right"][0] > counts["wrong"][0] + 50
    assert counts["wrong"][1] > counts["right"][1] + 50


def test_the_sample_has_the_proportion_of_errors_of_all_images() -> None:
    correct = np.arange(200) % 4 > 0
    sample = random_sample(correct, 24, seed=0)
    assert len(set(sample)) == 24
    assert (~correct[sample]).sum() == 6
    # In random order: errors are not the first ones, and neither are the first images.
    assert max(sample) > 100
    assert sample != sorted(sample)
    assert correct[sample[:6]].any()
    assert sample == random_sample(correct, 24, seed=0) != random_sample(correct, 24, seed=1)


@pytest.mark.parametrize(("images", "errors"), [(3, 0), (3, 3), (24, 1), (1000, 7), (1000, 993)])
def test_samples_of_few_images_or_few_errors(images: int, errors: int) -> None:
    correct = np.arange(images) >= errors
    sample = random_sample(correct, 24, seed=0)
    assert sorted(set(sample)) == sorted(sample)
    assert len(sample) == min(24, images)
    assert (~correct[sample]).sum() == round(len(sample) * errors / images)


def test_the_worst_errors_overlap_least(truth: Truth) -> None:
    boxes = np.array([each[0] for each in truth.boxes])
    offsets = [0, 3, 9, 1000, 200, 0, 5][: len(boxes)]
    moved = boxes + np.array(offsets, float)[:, None]
    correct = np.array([offset == 0 for offset in offsets])
    worst = worst_errors(truth, moved, correct, 3)
    assert worst[:2] == [3, 4]
    assert set(worst_errors(truth, moved, correct, 99)) == {1, 2, 3, 4, 6} & set(range(len(boxes)))


def test_a_picture_that_cannot_be_written(truth: Truth, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    boxes = np.array([each[0] for each in truth.boxes])
    with pytest.raises(DataError, match="file"):
        draw_boxes(truth, boxes, np.ones(len(boxes), bool), tmp_path / "file" / "x.png", "title")
