"""The paper's tasks on small trees, their samples and features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep import datum as datums
from data_prep.voc import open_voc
from prototxt_gen.errors import DataError, ProtoError
from runtime.paper.features.classification import Stacked, solve
from runtime.paper.features.extraction import Features
from runtime.paper.features.images import layout_of, open_images
from runtime.paper.features.measures import ALL_POINTS, ELEVEN_POINTS, RECALL
from runtime.paper.features.published import rows
from runtime.paper.features.tasks import TASKS, TaskOptions, classed, open_task
from runtime.paper.report import percent
from tests.data_prep.small_trees import (
    COLOURS,
    write_actions,
    write_annotation,
    write_caltech,
    write_voc,
)
from tests.runtime.evaluate.toy_net import write_images


def features(names: tuple[str, ...], values: Any, regions: str = "images") -> Features:
    attributes = {"net": "toy", "regions": regions, "source": "there", "weights_sha256": "0"}
    array = np.asarray(values, np.float32)
    return Features(names, array, np.zeros(len(names), np.int64), attributes)


def test_voc_tasks_have_the_papers_splits_and_measures(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"train": 8, "val": 7, "trainval": 9, "test": 6})
    task = open_task("voc2007", root)
    assert (task.measure, task.classes) == (ELEVEN_POINTS, tuple(sorted(COLOURS)))
    (split,) = task.splits
    assert (len(split.train), len(split.test)) == (9, 6)
    assert task.words == (
        "trained on trainval (9 images), tested on test (6); difficult ones are ignored"
    )
    lists = open_voc(root).lists("test")
    for k, name in enumerate(task.classes):
        assert split.test.targets[:, k].tolist() == [each.target for each in lists[name]]
    assert (split.test.targets == 0).any()
    assert all((root / image).is_file() for image in split.test.images)
    later = open_task("voc2012", root)
    assert (later.measure, later.options) == (ALL_POINTS, {"train": "train", "test": "val"})
    other = open_task("voc2012", root, TaskOptions(train="trainval", test="test"))
    assert len(other.splits[0].train) == 9


def test_people_are_samples_of_their_own(tmp_path: Path) -> None:
    root = write_actions(tmp_path, {"train": 5, "val": 4})
    task = open_task("action2012", root)
    train = task.splits[0].train
    assert len(train) == 10
    assert train.images[0] == train.images[1] == "JPEGImages/2010_000000.jpg"
    assert train.people[:4] == (1, 2, 1, 2)
    assert "(10 people in images)" in task.words


@pytest.mark.parametrize(
    ("name", "folder", "counts", "tests"),
    [
        ("caltech101", "101_ObjectCategories", (30, 50), 50),
        ("caltech256", "256_ObjectCategories", (60, None), 55),
    ],
)
def test_caltech_tasks_have_the_papers_counts(
    tmp_path: Path, name: str, folder: str, counts: tuple[int, int | None], tests: int
) -> None:
    for label in ("a", "b"):
        (tmp_path / folder / label).mkdir(parents=True)
        for index in range(115):
            (tmp_path / folder / label / f"{index}.jpg").write_bytes(b"")
    task = open_task(name, tmp_path)
    assert (task.measure, len(task.splits)) == (RECALL, 3)
    for split in task.splits:
        assert (len(split.train), len(split.test)) == (2 * counts[0], 2 * tests)
        assert not set(split.train.images) & set(split.test.images)
        assert split.train.targets.sum(axis=0).tolist() == [0, 0]
    assert f"{counts[0]} training images per class" in task.words


def test_options_of_other_tasks_and_other_errors(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc", {"trainval": 3, "test": 3})
    caltech = write_caltech(tmp_path / "caltech", 4)
    with pytest.raises(ProtoError, match=r"task: expected one of voc2007, .*, got 'imagenet'"):
        open_task("imagenet", voc)
    with pytest.raises(ProtoError) as caught:
        open_task("voc2007", voc, TaskOptions(train_per_class=3))
    assert str(caught.value) == (
        "task voc2007: VOC has splits by name; expected no --train-per-class; omit it"
    )
    with pytest.raises(ProtoError, match="Caltech's splits are random; expected no --train, --te"):
        open_task("caltech101", caltech, TaskOptions(train="train", test="test"))
    with pytest.raises(ProtoError, match="--splits: expected at least 1, got 0"):
        open_task("caltech101", caltech, TaskOptions(splits=0))
    with pytest.raises(DataError, match="4 images; expected more than the 30 to train on"):
        open_task("caltech101", caltech)
    (voc / "ImageSets" / "Main" / "pig_test.txt").unlink()
    with pytest.raises(ProtoError, match="lists of pig exist for only one of the splits trainval"):
        open_task("voc2007", voc)


def test_layouts_are_detected_by_content(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "VOCdevkit" / "VOC2007", {"train": 2})
    assert {layout_of(voc), layout_of(tmp_path), layout_of(voc.parent)} == {"voc"}
    caltech = write_caltech(tmp_path / "down" / "caltech-101", 2)
    assert {layout_of(caltech), layout_of(caltech.parent)} == {"caltech"}
    assert layout_of(caltech / "101_ObjectCategories") == "caltech"
    assert layout_of(write_images(tmp_path / "db", 2)) == "records"


def test_images_of_every_layout(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc", {"train": 4, "test": 2})
    (voc / "JPEGImages" / "unlisted.jpg").write_bytes(b"")
    images = open_images(voc)
    assert images.names() == tuple(f"JPEGImages/{n:06d}.jpg" for n in range(6))
    assert (images.path, images.regions) == (str(voc), "images")
    caltech = open_images(write_caltech(tmp_path / "caltech", 3))
    assert caltech.names()[:2] == ("cat/image_0001.jpg", "cat/image_0002.jpg")
    assert len(caltech.names()) == 9
    plain = open_images(tmp_path / "caltech" / "101_ObjectCategories", "caltech")
    assert plain.names() == caltech.names()
    assert open_images(write_images(tmp_path / "db", 2)).names() == ("00000000", "00000001")
    with pytest.raises(ProtoError, match=r"--boxes: expected PASCAL VOC .* got caltech"):
        open_images(tmp_path / "caltech", boxes=True)


def test_a_box_is_cut_out_with_both_its_ends(tmp_path: Path) -> None:
    root = write_actions(tmp_path, {"train": 2})
    images = open_images(root, boxes=True)
    assert images.regions == "boxes"
    assert images.names()[:2] == (
        "JPEGImages/2010_000000.jpg#1",
        "JPEGImages/2010_000000.jpg#2",
    )
    assert len(images.source) == 4
    whole = cv2.imread(str(root / "JPEGImages" / "2010_000000.jpg"))
    found = [datums.image_of(datums.parse(images.source.get(index), ""), "") for index in range(2)]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), whole)
    assert open_images(root, kind="Action").names() == (
        "JPEGImages/2010_000000.jpg",
        "JPEGImages/2010_000001.jpg",
    )


def test_a_box_outside_is_refused(tmp_path: Path) -> None:
    root = write_actions(tmp_path, {"train": 1})
    write_annotation(root, "2010_000000", [(50, 1, 60, 24), (1, 1, 9, 9)])
    source = open_images(root, boxes=True).source
    with pytest.raises(DataError) as caught:
        source.get(0)
    assert str(caught.value) == (
        "JPEGImages/2010_000000.jpg#1: a box from (50, 1) to (60, 24) in an image of 24x40; "
        "expected a box inside the image; unpack the annotations again"
    )
    (root / "JPEGImages" / "2010_000000.jpg").unlink()
    with pytest.raises(DataError, match=r"2010_000000\.jpg: cannot be read: No such file"):
        source.get(1)


def test_samples_find_their_image_and_their_box(tmp_path: Path) -> None:
    task = open_task("action2012", write_actions(tmp_path, {"train": 2, "val": 2}))
    train = task.splits[0].train
    images = tuple(dict.fromkeys(train.images))
    boxes = tuple(f"{image}#{person}" for image in images for person in (1, 2))
    stacked = Stacked(
        [features(images, [[1], [2]]), features(boxes, [[3], [4], [5], [6]], "boxes")]
    )
    assert stacked.rows(train).tolist() == [[1, 3], [1, 4], [2, 5], [2, 6]]
    with pytest.raises(DataError) as caught:
        stacked.rows(task.splits[0].test)
    assert str(caught.value) == (
        "features of toy (images of there): 4 of 4 samples are missing, such as "
        "JPEGImages/2010_000002.jpg, JPEGImages/2010_000003.jpg; expected all; extract the "
        "features of this data set, with --set or --boxes if the task needs them"
    )
    with pytest.raises(ProtoError, match="features: nothing to stack; expected at least one file"):
        Stacked([])


def test_each_image_is_of_one_class() -> None:
    samples = classed({"a": ["x", "y"], "b": ["z"]})
    assert samples.images == ("x", "y", "z")
    assert samples.targets.tolist() == [[1, -1], [1, -1], [-1, 1]]


def test_the_mean_and_the_spread_are_of_the_splits(tmp_path: Path) -> None:
    root = write_caltech(tmp_path, 12)
    options = TaskOptions(train_per_class=6, test_per_class=5, splits=3)
    task = open_task("caltech101", root, options)
    rng = np.random.default_rng(1)
    names = open_images(root).names()
    values = rng.normal(size=(len(names), 5))
    values[:, 0] += [3 * (name[0] == "c") for name in names]
    outcome = solve(task, [features(names, values)])
    means = [split.mean for split in outcome.splits]
    assert len(set(means)) > 1
    assert outcome.mean == pytest.approx(sum(means) / 3)
    spread = (sum((m - outcome.mean) ** 2 for m in means) / 2) ** 0.5
    assert outcome.std == pytest.approx(spread)
    for split in outcome.splits:
        assert split.mean == pytest.approx(sum(split.classes) / 3)
        assert split.choice.C in split.choice.measured
    one = open_task("caltech101", root, dataclasses.replace(options, splits=1))
    alone = solve(one, [features(names, values)])
    assert alone.std is None
    assert alone.mean == means[0]


def test_published_numbers() -> None:
    """Tables 11 and 12: its best of each column, and every task has rows of its own nets."""
    best = {"voc2007": 89.7, "voc2012": 90.3, "caltech101": 93.4, "caltech256": 86.2}
    best["action2012"] = 84.0
    assert set(best) == set(TASKS)
    for name, value in best.items():
        assert max(row.published["value"] or 0 for row in rows(name)) == value
        assert any(row.method.startswith("VGG Net-D & Net-E") for row in rows(name))
    texts = {percent(**row.published) for row in rows("voc2012") + rows("caltech101")}
    assert {"90.3", "92.7 ± 0.5", "91.8 ± 1.0"} <= texts
    assert [row.method for row in rows("voc2012") if row.extended] == ["Wei et al. (2014)"]
    assert rows("demo") == ()
