"""ILSVRC-2012's layouts and lists, on trees of a few tiny files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from data_prep.boxes import Box, read_boxes
from data_prep.ilsvrc import open_ilsvrc, write_list
from data_prep.ilsvrc_truth import Synset, read_ground_truth, read_name_list, read_solution
from prototxt_gen.errors import DataError

WNIDS = ("n00000003", "n00000001", "n00000002")
"""In the order of the synset file, which is not the alphabet's."""


def _write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two training images a class and four validation images, without validation labels."""
    for wnid in WNIDS:
        for number in (10, 9):
            _write(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG")
        _write(tmp_path / "train" / wnid / "notes.txt")
    for number in (1, 2, 3, 4):
        _write(tmp_path / "val" / f"ILSVRC2012_val_0000000{number}.JPEG")
    _write(tmp_path / "synset_words.txt", "n00000003 cat, tabby\nn00000001 dog\nn00000002\n")
    return tmp_path


VAL = [f"val/ILSVRC2012_val_0000000{number}.JPEG" for number in (1, 2, 3, 4)]


def test_training_list_is_in_a_fixed_order(tree: Path) -> None:
    data = open_ilsvrc(tree)
    assert [synset.words for synset in data.synsets] == ["cat, tabby", "dog", "n00000002"]
    entries = data.train_list()
    assert entries == [
        (f"train/{wnid}/{wnid}_{number}.JPEG", label)
        for wnid, label in (("n00000001", 1), ("n00000002", 2), ("n00000003", 0))
        for number in ("10", "9")
    ]
    assert write_list(entries[:1]) == "train/n00000001/n00000001_10.JPEG 1\n"


def test_labels_from_a_name_list(tree: Path) -> None:
    _write(tree / "val.txt", "".join(f"{Path(p).name} {k}\n" for p, k in zip(VAL, (2, 0, 1, 1))))
    assert open_ilsvrc(tree).val_list() == list(zip(VAL, (2, 0, 1, 1)))


def test_labels_from_kaggle_s_solution(tree: Path) -> None:
    rows = [
        f"{Path(path).stem},{wnid} 1 2 3 4 {wnid} 5 6 7 8"
        for path, wnid in reversed(list(zip(VAL, (*WNIDS, WNIDS[0]))))
    ]
    _write(tree / "LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *rows]))
    assert open_ilsvrc(tree).val_list() == list(zip(VAL, (0, 1, 2, 0)))


def test_labels_from_the_development_kit(tree: Path) -> None:
    kit = tree / "ILSVRC2012_devkit_t12" / "data"
    _write(kit / "ILSVRC2012_validation_ground_truth.txt", "3\n1\n2\n2\n")
    # Without a table the numbers are lines of the synset file.
    assert open_ilsvrc(tree).val_list() == list(zip(VAL, (2, 0, 1, 1)))
    _write(kit / "map_clsloc.txt", "n00000001 1 dog\nn00000002 2 fish\nn00000003 3 cat\n")
    assert open_ilsvrc(tree).val_list() == list(zip(VAL, (0, 1, 2, 2)))


def test_the_kit_s_meta_mat(tree: Path) -> None:
    from scipy.io import savemat

    rows = np.array(
        [(1, "n00000001"), (2, "n00000002"), (3, "n00000003"), (4, "n99999999")],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")],
    )
    savemat(str(tree / "meta.mat"), {"synsets": rows})
    _write(tree / "ILSVRC2012_validation_ground_truth.txt", "3\n1\n2\n2\n")
    assert open_ilsvrc(tree).val_list() == list(zip(VAL, (0, 1, 2, 2)))
    (tree / "meta.mat").write_bytes(b"junk" * 100)
    with pytest.raises(DataError, match=r"meta.mat: not the development kit's meta.mat .*; unpack"):
        open_ilsvrc(tree).val_list()


def test_ilsvrc_s_own_thousand_need_the_kit_s_table(tmp_path: Path) -> None:
    wnids = [f"n{number:08d}" for number in range(1000)]
    _write(tmp_path / "synset_words.txt", "\n".join(wnids))
    _write(tmp_path / "train" / wnids[0] / "x.JPEG")
    _write(tmp_path / "val" / "x.JPEG")
    _write(tmp_path / "ILSVRC2012_validation_ground_truth.txt", "5\n")
    with pytest.raises(
        DataError, match=r"its numbers are the development kit's, which need its ta"
    ):
        open_ilsvrc(tmp_path).val_list()


def test_validation_images_sorted_into_folders(tree: Path) -> None:
    for path, wnid in zip(VAL, (*WNIDS, WNIDS[0])):
        target = tree / "val" / wnid / Path(path).name
        target.parent.mkdir(exist_ok=True)
        (tree / path).rename(target)
    assert open_ilsvrc(tree).val_list() == [
        (f"val/{wnid}/{Path(path).name}", label)
        for path, wnid, label in zip(VAL, (*WNIDS, WNIDS[0]), (0, 1, 2, 0))
    ]


def test_kaggle_s_layout(tree: Path) -> None:
    inner = tree / "ILSVRC" / "Data" / "CLS-LOC"
    inner.mkdir(parents=True)
    (tree / "train").rename(inner / "train")
    (tree / "val").rename(inner / "val")
    (tree / "synset_words.txt").rename(tree / "LOC_synset_mapping.txt")
    data = open_ilsvrc(tree)
    assert len(data.train_list()) == 6
    entry = data.train_list()[0][0]
    assert entry == "ILSVRC/Data/CLS-LOC/train/n00000001/n00000001_10.JPEG"
    box = tree / "ILSVRC/Annotations/CLS-LOC/train/n00000001/n00000001_10.xml"
    _write(box)
    assert data.boxes_path(entry) == box


def test_without_a_synset_file_the_folders_are_the_classes(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "synset_words.txt").unlink()
    with caplog.at_level(logging.WARNING, "verydeep.data"):
        data = open_ilsvrc(tree)
    assert [synset.wnid for synset in data.synsets] == sorted(WNIDS)
    assert "labels follow the folders of train in alphabetical order" in caplog.text


def test_boxes_of_a_list_s_image(tree: Path) -> None:
    data = open_ilsvrc(tree)
    with pytest.raises(DataError, match=r"no bounding boxes of train; looked for .*bbox/train, "):
        data.boxes_path("train/n00000001/n00000001_9.JPEG")
    _write(tree / "bbox/train/n00000001/n00000001_9.xml")
    _write(tree / "bbox/val/ILSVRC2012_val_00000002.xml")
    found = data.boxes_path("train/n00000001/n00000001_9.JPEG")
    assert found == tree / "bbox/train/n00000001/n00000001_9.xml"
    assert data.boxes_path("train/n00000001/n00000001_10.JPEG") is None
    assert data.boxes_path(VAL[1]) == tree / "bbox/val/ILSVRC2012_val_00000002.xml"


def _remove(path: Path) -> None:
    for child in path.iterdir():
        child.unlink()
    path.rmdir()


def test_missing_parts_are_named(tree: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; expected the root of ILSVRC"):
        open_ilsvrc(tree / "nowhere")
    data = open_ilsvrc(tree)
    with pytest.raises(
        DataError, match=r"no labels of the validation images; looked for .*val.txt"
    ):
        data.val_list()
    _remove(tree / "val")
    with pytest.raises(DataError, match=r"no val images; looked for .*val, .*ILSVRC2012_img_val"):
        open_ilsvrc(tree)


def test_training_folders_and_synsets_must_agree(tree: Path) -> None:
    _write(tree / "train" / "n77777777" / "x.JPEG")
    with pytest.raises(
        DataError, match=r"folders that are no class .*n77777777.* one folder for e"
    ):
        open_ilsvrc(tree).train_list()
    _remove(tree / "train" / "n77777777")
    (tree / "train/n00000001/n00000001_9.JPEG").unlink()
    (tree / "train/n00000001/n00000001_10.JPEG").unlink()
    with pytest.raises(
        DataError, match=r"n00000001: no images; expected \*.JPEG; unpack the class"
    ):
        open_ilsvrc(tree).train_list()
    _remove(tree / "train" / "n00000001")
    with pytest.raises(
        DataError, match=r"1 classes have no folder \(n00000001\); expected one fol"
    ):
        open_ilsvrc(tree).train_list()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "ILSVRC2012_val_00000001.JPEG 5\n",
            r"val.txt:1: '.* 5'; expected a file name and a label",
        ),
        ("ILSVRC2012_val_00000001.JPEG\n", r"val.txt:1: .*; expected a file name and a label of 0"),
        (
            "ILSVRC2012_val_00000001.JPEG 0\n",
            "3 x image without a label, first ILSVRC2012_val_0000",
        ),
        ("other.JPEG 0\n", r"1 x name that is no image of .*val, first other.JPEG"),
    ],
)
def test_name_lists_that_do_not_fit(tree: Path, text: str, words: str) -> None:
    _write(tree / "val.txt", text)
    with pytest.raises(DataError, match=words):
        open_ilsvrc(tree).val_list()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n2\n", "2 labels; expected 4, one for each image of"),
        ("1\n2\n3\n4\n", r"truth.txt:4: '4' is not the number of a class; expected 1 to 3"),
        ("1\n2\n3\nx\n", r"truth.txt:4: 'x' is not the number of a class"),
    ],
)
def test_ground_truth_that_does_not_fit(tree: Path, text: str, words: str) -> None:
    _write(tree / "ILSVRC2012_validation_ground_truth.txt", text)
    with pytest.raises(DataError, match=words):
        open_ilsvrc(tree).val_list()


def test_synset_files_that_do_not_fit(tree: Path) -> None:
    _write(tree / "synset_words.txt", "n1 a\nn1 b\n")
    with pytest.raises(
        DataError, match=r"synset_words.txt:2: n1 occurs twice; expected each class"
    ):
        open_ilsvrc(tree)
    _write(tree / "synset_words.txt", "\n")
    with pytest.raises(DataError, match=r"synset_words.txt: no synsets; expected a line"):
        open_ilsvrc(tree)
    (tree / "synset_words.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"synset_words.txt: not a text file in UTF-8; expected"):
        open_ilsvrc(tree)


def _annotation(corners: str, name: str = "<name>n1</name>") -> str:
    return (
        f"<annotation><filename>x</filename><object>{name}<bndbox>{corners}</bndbox></object>"
        "<object><name>n2</name><bndbox><xmax>4</xmax><xmin>3</xmin><ymin>1</ymin><ymax>1.5</ymax>"
        "</bndbox></object></annotation>"
    )


CORNERS = "<xmin>10</xmin><ymin>20</ymin><xmax>110</xmax><ymax>95</ymax>"


def test_boxes(tmp_path: Path) -> None:
    _write(tmp_path / "x.xml", _annotation(CORNERS))
    boxes = [Box("n1", 10.0, 20.0, 110.0, 95.0), Box("n2", 3.0, 1.0, 4.0, 1.5)]
    assert read_boxes(tmp_path / "x.xml") == boxes
    _write(tmp_path / "none.xml", "<annotation/>")
    assert read_boxes(tmp_path / "none.xml") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation>", r"x.xml: not XML \(.*; expected an annotation of ILSVRC or VOC"),
        (_annotation("<xmin>1</xmin>"), "an object with the corners .*; expected a bndbox of four"),
        (_annotation(CORNERS.replace("110", "ten")), "expected a bndbox of four numbers"),
        (_annotation(CORNERS.replace("110", "nan")), "expected a name and finite numbers"),
        (_annotation(CORNERS, ""), "an object named None with corners"),
        (_annotation(CORNERS.replace("110", "9")), r"a box from \(10, 20\) to \(9, 95\); expected"),
    ],
)
def test_boxes_that_cannot_be(tmp_path: Path, text: str, words: str) -> None:
    _write(tmp_path / "x.xml", text)
    with pytest.raises(DataError, match=words):
        read_boxes(tmp_path / "x.xml")


def test_a_missing_box_file(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"x.xml: the boxes cannot be read: No such file .*; unpack"
    ):
        read_boxes(tmp_path / "x.xml")


@pytest.mark.parametrize("number", ["9" * 100_000, "\u00b2", "\u0665", "-1", "1e3", "1_0"])
def test_numbers_of_lists_are_short_and_decimal(number: str, tree: Path) -> None:
    synsets = [Synset(wnid, wnid) for wnid in WNIDS]
    path = tree / "list.txt"
    path.write_text(f"{number}\n")
    with pytest.raises(DataError, match=r"list\.txt:1: .*is not the number of a class") as caught:
        read_ground_truth(path, tree, synsets)
    assert len(str(caught.value)) < 1000
    path.write_text(f"image.JPEG {number}\n")
    with pytest.raises(DataError, match=r"list\.txt:1: .*expected a file name and a label"):
        read_name_list(path, 3)
    (tree / "map_clsloc.txt").write_text(f"n00000001 {number} words\n")
    path.write_text("1\n")
    with pytest.raises(DataError, match=r"map_clsloc\.txt:1: .*expected `wnid number words`"):
        read_ground_truth(path, tree, synsets)


def test_a_table_with_a_field_without_end(tree: Path) -> None:
    path = tree / "LOC_val_solution.csv"
    path.write_text(f'ImageId,x\n"{"x" * 200_000}\n')
    with pytest.raises(DataError, match=r"LOC_val_solution\.csv:2: field larger than field limit"):
        read_solution(path, {"n00000001": 0})
