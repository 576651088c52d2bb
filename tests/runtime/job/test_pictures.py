"""The picture of predictions: a fair sample, and apart from it the worst errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.datum import from_array
from data_prep.lmdb_io import Reader, Writer
from runtime.evaluate.central_crop import Evaluation
from runtime.job.pictures import Predictions, draw_predictions, predictions_figure

CLASSES = 5
NAMES = [f"n0000000{i} class {i}, also so" for i in range(CLASSES)]


def evaluation(images: int, errors: int) -> Evaluation:
    """The first `errors` images are wrong, each more so than the one before it."""
    labels = np.arange(images) % CLASSES
    scores = np.zeros((images, CLASSES), np.float32)
    scores[np.arange(images), labels] = 3
    for index in range(errors):
        scores[index, (labels[index] + 1) % CLASSES] = 4 + index
    return Evaluation(scores, labels.astype(np.int64))


def database(path: Path, images: int) -> Path:
    with Writer(path) as writer:
        for index in range(images):
            image = np.full((3, 4, 4), index % 256, np.uint8)
            writer.put(b"%08d" % index, from_array(image, index % CLASSES).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("images", "errors", "drawn"),
    [(1000, 0, 0), (1000, 250, 8), (1000, 20, 1), (1000, 10, 0), (64, 32, 16), (100, 100, 32)],
)
def test_the_sample_has_the_share_of_errors_of_all_images(
    images: int, errors: int, drawn: int
) -> None:
    predictions = Predictions.of(evaluation(images, errors))
    sample = predictions.sample(32)
    assert len(set(sample)) == 32
    assert sum(index < errors for index in sample) == drawn
    assert sample == predictions.sample(32)
    assert sample != predictions.sample(32, seed=1)
    assert sample != sorted(sample)


def test_the_sample_comes_from_the_whole_database() -> None:
    """Not the first images, as they are stored by class."""
    sample = Predictions.of(evaluation(10000, 5000)).sample(32)
    assert np.std(sample) == pytest.approx(10000 / np.sqrt(12), rel=0.25)


def test_a_sample_of_few_images_is_all_of_them() -> None:
    assert sorted(Predictions.of(evaluation(7, 2)).sample(32)) == list(range(7))
    assert Predictions.of(evaluation(0, 0)).sample(32) == []


def test_the_worst_errors_have_the_lowest_probability_of_the_truth() -> None:
    assert Predictions.of(evaluation(100, 20)).worst(4) == [19, 18, 17, 16]
    assert Predictions.of(evaluation(100, 3)).worst(4) == [2, 1, 0]
    assert Predictions.of(evaluation(100, 0)).worst(4) == []


def test_scores_that_saturate_are_still_ordered() -> None:
    """The probability of the truth is 0 in float64 for all of these."""
    scores = np.array([[0, 2000], [0, 4000], [0, 3000], [np.nan, 0]], np.float32)
    assert Predictions.of(Evaluation(scores, np.zeros(4, np.int64))).worst(4) == [3, 1, 2, 0]


def test_a_tie_is_an_error_as_in_the_top1_error() -> None:
    scores = np.array([[2, 2, 1], [2, 1, 1]], np.float32)
    predictions = Predictions.of(Evaluation(scores, np.array([0, 0])))
    assert predictions.wrong.tolist() == [True, False]
    assert predictions.predicted.tolist() == [1, 0]


def texts(part: Any) -> list[tuple[str, str]]:
    return [(a.get_title(), a.title.get_color()) for a in part.axes if a.get_title()]


def test_both_parts_are_labelled(tmp_path: Path) -> None:
    with Reader(database(tmp_path / "db", 64)) as reader:
        predictions = Predictions.of(evaluation(64, 20))
        figure = predictions_figure(reader, predictions, NAMES, "A title")
    sample, worst = figure.subfigs
    assert sample.get_suptitle() == (
        "Random sample (seed 0): 32 of 64 images, 10 wrong (31.2 %; of all images 31.2 %)"
    )
    assert worst.get_suptitle() == (
        "Worst errors, not a sample: the 16 of 20 wrong predictions with the lowest probability of "
        "the true class"
    )
    colours = [colour for _, colour in texts(sample)]
    assert (colours.count("firebrick"), colours.count("black")) == (10, 22)
    assert {colour for _, colour in texts(worst)} == {"firebrick"}
    assert texts(worst)[0][0] == "class 0 100 %\nis class 4"


def test_without_errors_the_second_part_has_a_note(tmp_path: Path) -> None:
    with Reader(database(tmp_path / "db", 3)) as reader:
        figure = predictions_figure(reader, Predictions.of(evaluation(3, 0)), NAMES, "A title")
    assert figure.subfigs[1].get_suptitle() == "Worst errors: no prediction is wrong"
    png = draw_predictions(tmp_path / "db", evaluation(3, 0), NAMES, tmp_path / "p.png", "A title")
    assert png.read_bytes()[:4] == b"\x89PNG"
