"""Databases of boxes for those of images, and the reader that moves boxes with their images."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep import datum as datums
from data_prep.box_database import (
    BoxReader,
    box_record,
    class_boxes,
    file_size,
    largest,
    read_record,
    stored_size,
    with_boxes,
    write_boxes,
)
from data_prep.boxes import Box
from data_prep.convert_imageset import ConvertOptions, convert
from data_prep.ilsvrc import Ilsvrc, open_ilsvrc
from data_prep.lmdb_io import Reader, Writer
from data_prep.prefetch import BatchReader
from data_prep.read_plan import ReadPlan
from data_prep.transform import Crop, Mirror, Rescale, Scale, Transform
from prototxt_gen.errors import DataError, ProtoError
from tests.data_prep.image_samples import HEIGHT, WIDTH, accepted, oriented

SIZES = {"a": (40, 60), "b": (80, 50), "c": (64, 64)}
BOXES = {"a": [(10, 8, 30, 28)], "b": [(5, 5, 9, 9), (12, 20, 44, 72)], "c": [(0, 0, 64, 64)]}


def annotation(boxes: list[tuple[int, ...]], name: str) -> str:
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{c}>{v}</{c}>" for c, v in zip(corners, box))
        + "</bndbox></object>"
        for box in boxes
    )
    return f"<annotation>{objects}</annotation>"


@pytest.fixture
def tree(tmp_path: Path) -> Ilsvrc:
    """One class of three training images with bright boxes on black, one held-out image."""
    root = tmp_path / "set"
    for folder in ("train/n01", "val/n01", "bbox/train/n01", "bbox/val/n01"):
        (root / folder).mkdir(parents=True)
    (root / "train/n02").mkdir()
    for name, (height, width) in SIZES.items():
        image = np.zeros((height, width, 3), np.uint8)
        for x0, y0, x1, y1 in BOXES[name]:
            image[y0:y1, x0:x1] = 255
        cv2.imwrite(str(root / f"train/n01/{name}.png"), image)
        (root / f"bbox/train/n01/{name}.xml").write_text(annotation(BOXES[name], "n01"))
    cv2.imwrite(str(root / "train/n02/d.png"), np.zeros((30, 30, 3), np.uint8))
    cv2.imwrite(str(root / "val/n01/v.png"), np.zeros((30, 30, 3), np.uint8))
    (root / "bbox/val/n01/v.xml").write_text(annotation([(1, 2, 3, 4)], "other"))
    (root / "synset_words.txt").write_text("n01 thing\nn02 other\n")
    return open_ilsvrc(root)


def test_images_without_a_box_are_left_out_and_counted(
    tree: Ilsvrc, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "verydeep.data"):
        kept = with_boxes(tree, tree.train_list(), "training")
    assert kept == [(f"train/n01/{name}.png", 0) for name in "abc"]
    assert caplog.messages == [
        f"{tree.root}: 1 of 4 training images have no box of their class and are left out"
    ]


def test_a_box_of_another_class_is_none(tree: Ilsvrc) -> None:
    with pytest.raises(DataError) as caught:
        with_boxes(tree, tree.val_list(), "held-out")
    assert str(caught.value) == (
        f"{tree.root}: none of 1 held-out images has a box of its class; expected XML files named "
        "as the images; unpack the bounding-box archive of this data set"
    )
    assert class_boxes(tree, ("train/n01/a.png", 0)) == [Box("n01", 10, 8, 30, 28)]
    assert class_boxes(tree, ("train/n02/d.png", 1)) == []


def test_the_largest_box_is_the_target() -> None:
    small, large, equal = Box("n", 0, 0, 2, 9), Box("n", 0, 0, 4, 5), Box("n", 1, 1, 6, 5)
    assert largest([small, large, equal]) == large


def databases(tree: Ilsvrc, tmp_path: Path, short_side: int = 0) -> tuple[Path, Path]:
    images, boxes = tmp_path / "images", tmp_path / "boxes"
    options = ConvertOptions(short_side=short_side, shrink_only=True, encoded=True, shuffle=True)
    convert(tree.root, with_boxes(tree, tree.train_list(), "training"), images, options)
    assert write_boxes(images, tree, boxes) == 3
    return images, boxes


def test_boxes_are_stored_in_pixels_of_the_stored_images(tree: Ilsvrc, tmp_path: Path) -> None:
    images, boxes = databases(tree, tmp_path, short_side=40)
    halves = {"a": 1.0, "b": 40 / 50, "c": 40 / 64}
    with Reader(images) as first, Reader(boxes) as second:
        for index in range(3):
            key = first.key(index)
            assert second.key(index) == key
            name = Path(key).stem
            box, label = read_record(second.get(index), key)
            assert label == 0
            datum = datums.parse(first.get(index), key)
            height, width = stored_size(datum, key)
            assert (height, width) == datums.image_of(datum, key).shape[:2]
            wanted = np.array(BOXES[name][-1]) * halves[name]
            np.testing.assert_allclose(box, wanted, rtol=1e-5)


def test_sizes_are_those_of_the_stored_pixels(tmp_path: Path) -> None:
    """For every format and orientation tag."""
    files = {**{name: content for name, (content, _) in accepted().items()}, **oriented(6)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert file_size(tmp_path / name) == (HEIGHT, WIDTH)
        datum = datums.from_encoded(content, 0)
        assert stored_size(datum, name) == (HEIGHT, WIDTH)


def test_boxes_of_images_whose_names_are_not_utf_8(tree: Ilsvrc, tmp_path: Path) -> None:
    name = b"train/n01/caf\xe9".decode(errors="surrogateescape")
    for folder, old, new in (("", "a.png", ".png"), ("bbox/", "a.xml", ".xml")):
        content = (tree.root / f"{folder}train/n01/{old}").read_bytes()
        (tree.root / f"{folder}{name}{new}").write_bytes(content)
    convert(tree.root, [(f"{name}.png", 0)], tmp_path / "images")
    assert write_boxes(tmp_path / "images", tree, tmp_path / "boxes") == 1
    with Reader(tmp_path / "boxes") as reader:
        assert reader.key_bytes(0) == b"00000000_train/n01/caf\xe9.png"


def test_a_record_of_a_box_is_a_datum_of_four_floats() -> None:
    datum = datums.parse(box_record(np.array([10.0, 20, 30, 60]), 7), "test")
    assert (datum.channels, datum.height, datum.width, datum.label) == (4, 1, 1, 7)
    assert list(datum.float_data) == [20, 40, 20, 40]
    image = datums.from_array(np.zeros((1, 2, 2), np.uint8), 0).SerializeToString()
    with pytest.raises(DataError) as caught:
        read_record(image, "record 3")
    assert str(caught.value) == (
        "record 3: 0 numbers; expected a box: centre x, centre y, width, height; make the "
        "database of boxes again"
    )


def test_an_image_that_has_no_box_stops_the_writing(tree: Ilsvrc, tmp_path: Path) -> None:
    convert(tree.root, tree.train_list(), tmp_path / "images", ConvertOptions(encoded=True))
    with pytest.raises(DataError) as caught:
        write_boxes(tmp_path / "images", tree, tmp_path / "boxes")
    assert str(caught.value) == (
        f"record 00000003_train/n02/d.png: no box of its class in {tree.root}; expected images "
        "with boxes only; make the database of images again from those"
    )


def plan(images: Reader) -> ReadPlan:
    steps = (Rescale(40, 48), Crop(32), Mirror())
    return ReadPlan(images, Transform(steps), 4, shuffle=True, seed=5, stream=9, workers=0)


def test_boxes_follow_their_images(tree: Ilsvrc, tmp_path: Path) -> None:
    """The bright part of the crop is the box that the reader returns."""
    paths = databases(tree, tmp_path)
    with Reader(paths[0]) as images, Reader(paths[1]) as boxes:
        pictures = BatchReader(plan(images))
        reader = BoxReader(boxes, pictures.plan, Transform(), "layer 'box'")
        assert reader.shape == (4, 1, 1)
        checked = 0
        for iteration in range(12):
            batch = reader.read(iteration, 0, 4)
            assert batch.labels.tolist() == [0, 0, 0, 0]
            crops = pictures.read(iteration, 0, 4).data
            for row in range(4):
                x, y, width, height = batch.data[row, :, 0, 0]
                edges = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
                inside = np.clip(edges, 0, 32)
                if (inside[2:] - inside[:2]).min() < 6:
                    continue
                # The small second box of an image may be in sight as well: look along the middle.
                middle = crops[row, 0][int(inside[[1, 3]].mean())]
                bright = np.flatnonzero(middle > 127)
                np.testing.assert_allclose([bright[0], bright[-1] + 1], inside[[0, 2]], atol=1.01)
                checked += 1
        assert checked > 30


def test_a_part_of_a_batch_is_that_part_of_the_whole(tree: Ilsvrc, tmp_path: Path) -> None:
    """So two shards see what one device sees."""
    paths = databases(tree, tmp_path)
    with Reader(paths[0]) as images, Reader(paths[1]) as boxes:
        reader = BoxReader(boxes, plan(images), Transform((Scale(1 / 32),)), "box")
        whole = reader.read(3, 0, 4).data
        parts = [reader.read(3, first, 2).data for first in (0, 2)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        assert np.abs(whole - reader.read(4, 0, 4).data).max() > 0.01
        plain = BoxReader(boxes, plan(images), Transform(), "box").read(3, 0, 4).data
        np.testing.assert_allclose(plain / 32, whole, rtol=1e-6)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "no images",
            "layer 'box': boxes without images; expected a Data layer of images before the layer "
            "of boxes, got none; change the order, or leave `boxes` out of the sidecar",
        ),
        (
            "own crop",
            "layer 'box': crop_size or mirror for boxes; expected a transform_param with "
            "mean_value and scale at most; remove them: boxes are cropped and mirrored as their "
            "images",
        ),
    ],
)
def test_a_layer_of_boxes_that_cannot_be(
    tree: Ilsvrc, tmp_path: Path, what: str, message: str
) -> None:
    paths = databases(tree, tmp_path)
    with Reader(paths[0]) as images, Reader(paths[1]) as boxes:
        followed = None if what == "no images" else plan(images)
        own = Transform((Crop(1),)) if what == "own crop" else Transform()
        with pytest.raises(ProtoError) as caught:
            BoxReader(boxes, followed, own, "layer 'box'")
    assert str(caught.value) == message


def test_boxes_of_other_images_are_found_out(tree: Ilsvrc, tmp_path: Path) -> None:
    paths = databases(tree, tmp_path)
    for name, count in (("other", 3), ("fewer", 2)):
        with Writer(tmp_path / name) as writer:
            for number in range(count):
                writer.put(f"{number:08d}_x".encode(), box_record(np.array([0.0, 0, 1, 1]), 0))
    with Reader(paths[0]) as images, Reader(tmp_path / "other") as boxes:
        reader = BoxReader(boxes, plan(images), Transform(), "layer 'box'")
        with pytest.raises(DataError) as caught:
            reader.read(0, 0, 1)
        record = plan(images).sampler.record_at(0)
        assert str(caught.value) == (
            f"record {record:08d}_x: in the place of the image {images.key(record)}; expected "
            "its box, with the same key; make both databases again from one list"
        )
    with Reader(paths[0]) as images, Reader(tmp_path / "fewer") as boxes:
        with pytest.raises(DataError) as caught:
            BoxReader(boxes, plan(images), Transform(), "layer 'box'")
        assert str(caught.value) == (
            "layer 'box': 2 boxes for 3 images; expected one for each; make both databases again "
            "from one list"
        )
