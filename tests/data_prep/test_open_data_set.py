"""Data sets of images in all layouts: classes, labels, held-out images, boxes and errors."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_prep.data_set import Split, class_names
from data_prep.ilsvrc import Ilsvrc
from data_prep.open_data_set import is_data_set, open_data_set
from prototxt_gen.errors import DataError
from tests.data_prep.class_folders import write_coco, write_folders
from tests.data_prep.small_trees import write_voc


def test_the_classes_are_the_folders_in_alphabetical_order(tmp_path: Path) -> None:
    data = open_data_set(write_folders(tmp_path / "set", 5, ("pig", "cat", "dog")))
    assert class_names(data) == ("cat", "dog", "pig")
    for name, label in (*data.train_list(), *data.val_list()):
        assert name.split("/")[0] == ("cat", "dog", "pig")[label]
        assert (data.root / name).is_file()


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (3, 1), (5, 1), (10, 2), (13, 3)])
def test_a_part_of_each_class_is_held_out(tmp_path: Path, count: int, held: int) -> None:
    write_folders(tmp_path, count)
    write_folders(tmp_path, 5, ("extra",))
    data = open_data_set(tmp_path)
    train, val = data.train_list(), data.val_list()
    assert not set(train) & set(val)
    assert len(train) + len(val) == 3 * count + 5
    counts = Counter(label for _, label in val)
    assert [counts[label] for label in (0, 1, 3)] == [held] * 3


def test_the_split_depends_on_its_seed_alone(tmp_path: Path) -> None:
    write_folders(tmp_path, 10)
    first = open_data_set(tmp_path, Split(0.3, 7)).val_list()
    assert first == open_data_set(tmp_path, Split(0.3, 7)).val_list()
    assert first != open_data_set(tmp_path, Split(0.3, 8)).val_list()
    assert len(first) == 9


@pytest.mark.parametrize("val", ["val", "valid", "validation", "test"])
def test_folders_of_train_and_val(tmp_path: Path, val: str) -> None:
    write_folders(tmp_path / "train", 4)
    write_folders(tmp_path / val, 2)
    data = open_data_set(tmp_path)
    assert class_names(data) == ("cat", "dog", "pig")
    assert len(data.train_list()) == 12
    assert data.val_list()[0] == (f"{val}/cat/0.jpg", 0)
    assert len(data.val_list()) == 6


def test_train_without_val_is_divided(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", 5)
    data = open_data_set(tmp_path)
    assert (len(data.train_list()), len(data.val_list())) == (12, 3)


def test_folders_below_classes_hidden_files_and_other_files(tmp_path: Path) -> None:
    write_folders(tmp_path, 3)
    shutil.move(tmp_path / "cat", tmp_path / "deep")
    (tmp_path / "cat").mkdir()
    shutil.move(tmp_path / "deep", tmp_path / "cat" / "deep")
    for name in (".DS_Store", "cat/notes.txt", "cat/.hidden.jpg", "readme.md"):
        (tmp_path / name).write_text("no image")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    data = open_data_set(tmp_path)
    assert class_names(data) == ("cat", "dog", "pig")
    names = [name for name, _ in (*data.train_list(), *data.val_list())]
    assert sorted(names)[:3] == ["cat/deep/0.jpg", "cat/deep/1.jpg", "cat/deep/2.jpg"]


def test_ilsvrc_is_opened_as_before(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", 2, ("n01", "n02"))
    write_folders(tmp_path / "val", 1, ("n01", "n02"))
    (tmp_path / "synset_words.txt").write_text("n02 big dog\nn01 small cat\n")
    data = open_data_set(tmp_path)
    assert isinstance(data, Ilsvrc)
    assert class_names(data) == ("big dog", "small cat")


@pytest.mark.parametrize("classes", [(), ("cat",)])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, classes: tuple[str, ...]) -> None:
    write_folders(tmp_path, 3, classes)
    with pytest.raises(DataError, match=r"1 class \(cat\); expected at least 2|no data set"):
        open_data_set(tmp_path)


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no images; expected files"):
        open_data_set(tmp_path)


def test_a_held_out_class_without_training_images_is_refused(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", 2)
    write_folders(tmp_path / "val", 2, ("cow",))
    with pytest.raises(DataError, match=r"val/cow: no class of the training images"):
        open_data_set(tmp_path)


def test_one_image_a_class_cannot_be_divided(tmp_path: Path) -> None:
    write_folders(tmp_path, 1)
    with pytest.raises(DataError, match=r"no image is held out"):
        open_data_set(tmp_path)


def test_a_hundred_thousand_classes_are_opened(tmp_path: Path) -> None:
    lines = [f"{index}/{n}.jpg,{index}" for index in range(100_000) for n in range(2)]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["path,label", *lines]))
    data = open_data_set(tmp_path)
    assert len(data.synsets) == len(data.val_list()) == 100_000
    assert data.synsets[12345].wnid == "12345"


def test_csv_with_a_split(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "id,filename,class,split\n1,a b.jpg,dog,train\n2,b.jpg,cat,train\n3,c.jpg,dog,val\n"
    )
    data = open_data_set(path)
    assert class_names(data) == ("cat", "dog")
    assert data.train_list() == [("a b.jpg", 1), ("b.jpg", 0)]
    assert data.val_list() == [("c.jpg", 1)]
    assert data.root == tmp_path


def test_two_csv_files_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('\ufeffpath,label\r\n"x,1.jpg",10\r\ny.jpg,9\r\n')
    (tmp_path / "val.csv").write_text("path,label\nz.jpg,10\n")
    data = open_data_set(tmp_path)
    assert class_names(data) == ("9", "10")
    assert data.train_list() == [("x,1.jpg", 1), ("y.jpg", 0)]
    assert data.val_list() == [("z.jpg", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column of the path"),
        ("path,label\n", "no images"),
        ("path,colour\na,b\n", "no column of the label; expected one of label"),
        ("path,label\na.jpg\n", r"labels.csv:2: 1 values; expected at least 2"),
        ("path,label\na.jpg,\n", r"labels.csv:2: path 'a.jpg', label ''"),
        ("path,label,split\na.jpg,b,dev\n", "split 'dev'; expected train, val or test"),
        ("path,label,split\na.jpg,b,train\nb.jpg,c,val\n", "class 'c', which has no training"),
        ("path,label\na.jpg,b\nc.jpg,b\n", r"1 class \(b\); expected at least 2"),
    ],
)
def test_wrong_csv_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_data_set(tmp_path)


def test_coco(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_coco(tmp_path, "train2017", 4)
    write_coco(tmp_path, "val2017", 2, 100)
    with caplog.at_level(logging.WARNING):
        data = open_data_set(tmp_path)
    assert class_names(data) == ("cat", "dog", "pig")
    assert (len(data.train_list()), len(data.val_list())) == (11, 5)
    assert "2 images with no object or with objects of several classes" in caplog.text
    name, label = data.train_list()[0]
    assert (name, label) == ("train2017/000000000002.jpg", 1)
    assert (data.root / name).is_file()
    (box,) = data.boxes(name)
    assert (box.name, box.xmin, box.ymin, box.xmax, box.ymax) == ("dog", 3, 4, 13, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 3}, "images: expected a list of objects, got 3"),
        ({"categories": [{"id": 5}]}, "name: expected str, got None"),
        ({"annotations": [{"image_id": 77, "category_id": 5}]}, "image 77 and category 5"),
        (
            {"annotations": [{"image_id": 1, "category_id": 5, "bbox": [1]}]},
            "bbox: expected x, y, width and height",
        ),
    ],
)
def test_damaged_coco_files_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write_coco(tmp_path, "train") / "annotations" / "instances_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        open_data_set(tmp_path)


def test_coco_without_its_images_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, "train")
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DataError, match=r"the image '0+2.jpg' was not found|'0+1.jpg' was not"):
        open_data_set(tmp_path)


def test_voc_uses_images_of_one_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_voc(tmp_path / "VOC2007", {"train": 14, "val": 7})
    with caplog.at_level(logging.WARNING):
        data = open_data_set(tmp_path)
    assert class_names(data) == ("cat", "dog", "pig")
    assert (len(data.train_list()), len(data.val_list())) == (12, 6)
    assert "2 of 14 images of train show no class or several" in caplog.text


def test_boxes_next_to_the_images_or_below_bbox(tmp_path: Path) -> None:
    write_folders(tmp_path, 2)
    xml = (
        "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin>"
        "<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
    )
    with pytest.raises(DataError, match="the data set has no boxes"):
        open_data_set(tmp_path).boxes("cat/0.jpg")
    (tmp_path / "cat" / "0.xml").write_text(xml)
    (tmp_path / "bbox" / "cat").mkdir(parents=True)
    (tmp_path / "bbox" / "cat" / "1.xml").write_text(xml)
    data = open_data_set(tmp_path)
    assert class_names(data) == ("cat", "dog", "pig")
    for name, count in (("cat/0.jpg", 1), ("cat/1.jpg", 1), ("dog/0.jpg", 0)):
        assert len(data.boxes(name)) == count


def test_paths_that_are_no_data_sets(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("cat")
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").write_bytes(b"")
    for name in ("text", "db", "absent"):
        assert not is_data_set(tmp_path / name)
    for name in ("text", "absent"):
        with pytest.raises(DataError, match=rf"{name}: no such data set; expected ILSVRC"):
            open_data_set(tmp_path / name)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="held-out fraction"):
        Split(value)


def test_images_in_one_folder_with_a_list(tmp_path: Path) -> None:
    write_folders(tmp_path, 2, ("train",))
    (tmp_path / "train.csv").write_text("file,label\ntrain/0.jpg,cat\ntrain/1.jpg,dog\n")
    (tmp_path / "val.csv").write_text("file,label\ntrain/1.jpg,dog\n")
    data = open_data_set(tmp_path)
    assert data.train_list() == [("train/0.jpg", 0), ("train/1.jpg", 1)]
