"""PASCAL VOC's lists and boxes, from tiny trees of its layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.voc import ACTION, Listed, open_voc
from prototxt_gen.errors import DataError
from tests.data_prep.small_trees import COLOURS, write_actions, write_annotation, write_voc

COUNTS = {"trainval": 9, "test": 5}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "VOCdevkit" / "VOC2007", COUNTS)


def test_lists_are_read_as_written(root: Path) -> None:
    voc = open_voc(root)
    lists = voc.lists("trainval")
    assert list(lists) == sorted(COLOURS)
    assert lists["dog"][:2] == [Listed("000000", 0, -1), Listed("000001", 0, 1)]
    # Image 6 is a cat; a dog in it is hard to see.
    assert [lists[name][6].target for name in ("cat", "dog", "pig")] == [1, 0, -1]
    assert [each.image for each in voc.lists("test")["cat"]] == [f"{n:06d}" for n in range(9, 14)]
    assert (voc.root / voc.file("000003")).is_file()


def test_people_are_listed_with_their_places(tmp_path: Path) -> None:
    voc = open_voc(write_actions(tmp_path, {"train": 3}))
    lists = voc.lists("train", ACTION)
    assert list(lists) == sorted(COLOURS)  # without `other`
    assert [(each.image, each.person) for each in lists["cat"]][:3] == [
        ("2010_000000", 1),
        ("2010_000000", 2),
        ("2010_000001", 1),
    ]
    box = voc.box("2010_000000", 2)
    assert (box.xmin, box.ymin, box.xmax, box.ymax) == (21, 1, 40, 24)


def test_the_year_is_found_from_above(root: Path) -> None:
    above = root.parents[1]
    assert open_voc(above).root == open_voc(above / "VOCdevkit").root == root
    write_voc(root.with_name("VOC2012"), {"train": 3})
    with pytest.raises(DataError) as caught:
        open_voc(above)
    assert "2 years, " in str(caught.value)
    assert "expected one; name its folder" in str(caught.value)


def test_what_is_no_voc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_voc(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no PASCAL VOC; expected the folders JPEGImages and ImageSets there, in "
        "VOC<year> or in VOCdevkit/VOC<year>; unpack the archive, and name the year's folder"
    )


def test_missing_lists_are_named(root: Path) -> None:
    voc = open_voc(root)
    with pytest.raises(DataError) as caught:
        voc.lists("val")
    assert str(caught.value) == (
        f"{root}/ImageSets/Main: no lists of the split 'val'; expected <class>_val.txt, got the "
        "splits test, trainval; unpack the archive that has them, or choose another split"
    )
    with pytest.raises(DataError, match=r"expected <class>_train\.txt, got none; unpack"):
        voc.lists("train", ACTION)


@pytest.mark.parametrize("line", ["000001", "000001 2", "000001 1 1", "000001 x"])
def test_a_line_that_does_not_read_is_quoted(root: Path, line: str) -> None:
    path = root / "ImageSets" / "Main" / "dog_test.txt"
    path.write_text(f"000000 1\n{line}\n")
    with pytest.raises(DataError) as caught:
        open_voc(root).lists("test")
    assert f"{path}:2: '{line}'; expected `id target`, the target 1, -1 or 0" in str(caught.value)


def test_a_person_without_a_place_is_refused(tmp_path: Path) -> None:
    root = write_actions(tmp_path, {"train": 2})
    path = root / "ImageSets" / "Action" / "cat_train.txt"
    path.write_text("2010_000000 1\n")
    with pytest.raises(DataError, match=r"cat_train\.txt:1: .*expected `id object target`"):
        open_voc(root).lists("train", ACTION)


def test_empty_lists_and_lists_of_other_images_are_refused(root: Path) -> None:
    folder = root / "ImageSets" / "Main"
    (folder / "dog_test.txt").write_text("000000 1\n")
    with pytest.raises(DataError, match=r"dog_test\.txt and cat_test\.txt name other images"):
        open_voc(root).lists("test")
    (folder / "cat_test.txt").write_text("\n")
    with pytest.raises(DataError, match=r"cat_test\.txt: the list is empty"):
        open_voc(root).lists("test")


def test_a_box_that_is_not_there_is_named(tmp_path: Path) -> None:
    voc = open_voc(write_actions(tmp_path, {"train": 1}))
    write_annotation(voc.root, "2010_000000", [(1, 1, 5, 5)])
    with pytest.raises(DataError, match=r"2010_000000\.xml: 1 objects; expected object 2, which"):
        voc.box("2010_000000", 2)
    with pytest.raises(DataError, match="the boxes cannot be read"):
        voc.box("2010_000009", 1)


@pytest.mark.parametrize("person", ["9" * 100_000, "\u0665", "\u00b2", "-1", "1e5", "1.0", "+-1"])
def test_places_that_are_no_numbers(person: str, tmp_path: Path) -> None:
    voc = open_voc(write_actions(tmp_path, {"train": 3}))
    path = voc.root / "ImageSets" / ACTION / "cat_train.txt"
    path.write_text(f"2010_000000 {person} 1\n")
    with pytest.raises(
        DataError, match=r"cat_train\.txt:1: .*expected `id object target`"
    ) as caught:
        voc.lists("train", ACTION)
    assert len(str(caught.value)) < 1000
