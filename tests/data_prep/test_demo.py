"""The embedded data set: a true ILSVRC-2012 tree, honest splits, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep import demo, demo_scene
from data_prep.demo import WNIDS, WORDS, DemoSet, make_demo
from data_prep.demo_scene import TRAIN, VAL, Scene, Sources, draw_scene, load_sources
from data_prep.ilsvrc import open_ilsvrc, read_boxes
from prototxt_gen.errors import DataError

COUNTS = {"train": 60, "val": 25}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    return make_demo(tmp_path_factory.mktemp("demo") / "set", **COUNTS)


def tree(root: Path) -> dict[str, str]:
    """The digest of every file by its path."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def train_sources() -> Sources:
    return load_sources(TRAIN)


@pytest.fixture(scope="module")
def val_sources() -> Sources:
    return load_sources(VAL)


def over_grey(real: Sources, value: int) -> Sources:
    """The digits of `real` over a photograph of one grey."""
    grey = np.full((300, 400, 3), value, np.uint8)
    return Sources(real.sheets, real.labels, (grey,))


# The layout ---------------------------------------------------------------------------------


def test_the_tree_opens_as_ilsvrc_with_every_image_labelled_and_boxed(small: DemoSet) -> None:
    opened = open_ilsvrc(small.root)
    assert [synset.wnid for synset in opened.synsets] == list(WNIDS) == sorted(WNIDS)
    assert [synset.words for synset in opened.synsets] == list(WORDS)
    train, val = opened.train_list(), opened.val_list()
    assert len(train) == small.train_images == 60
    assert len(val) == small.val_images == 25
    assert Counter(label for _, label in train) == dict.fromkeys(range(10), 6)
    assert set(Counter(label for _, label in val).values()) <= {2, 3}
    for name, label in train + val:
        path = opened.boxes_path(name)
        assert path is not None
        assert [box.name for box in read_boxes(path)] == [WNIDS[label]]


def test_the_data_set_has_its_paths_and_lists(small: DemoSet) -> None:
    lines = small.val_list.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("ILSVRC2012_val_00000001.JPEG ")
    path = small.root / "ILSVRC2012_validation_ground_truth.txt"
    truth = path.read_text(encoding="utf-8").split()
    assert [int(line.split()[1]) + 1 for line in lines] == [int(number) for number in truth]
    assert small.synset_words.read_text(encoding="utf-8").splitlines()[3] == "n00000003 three"
    assert (small.train / "n00000003" / "n00000003_1.JPEG").is_file()
    assert (small.train_boxes / "n00000003" / "n00000003_1.xml").is_file()
    assert (small.val / "ILSVRC2012_val_00000025.JPEG").is_file()
    assert (small.val_boxes / "ILSVRC2012_val_00000025.xml").is_file()


def test_image_sizes_boxes_and_annotations_agree(small: DemoSet) -> None:
    shapes = set()
    for image_path in sorted(small.train.rglob("*.JPEG")):
        image = cv2.imread(str(image_path))
        height, width = image.shape[:2]
        shapes.add((height, width))
        assert 72 <= min(height, width) <= 112
        assert 3 / 4 - 0.01 <= width / height <= 4 / 3 + 0.01
        xml = small.train_boxes / image_path.relative_to(small.train).with_suffix(".xml")
        text = xml.read_text(encoding="utf-8")
        assert f"<width>{width}</width>" in text
        assert f"<height>{height}</height>" in text
        assert f"<filename>{image_path.stem}</filename>" in text
        (box,) = read_boxes(xml)
        assert 0 <= box.xmin < box.xmax <= width
        assert 0 <= box.ymin < box.ymax <= height
        assert 0.4 < (box.ymax - box.ymin) / min(height, width) < 1.0
    assert len(shapes) > 40, "sizes hardly vary"


def test_the_annotation_holds_the_scene_s_box(train_sources: Sources, tmp_path: Path) -> None:
    scene = draw_scene(train_sources, 7, rng(3))
    (tmp_path / "val").mkdir()
    (tmp_path / "bbox" / "val").mkdir(parents=True)
    demo._write_scene(tmp_path, VAL, 4, scene)
    (box,) = read_boxes(tmp_path / "bbox" / "val" / "ILSVRC2012_val_00000005.xml")
    assert (box.xmin, box.ymin) == (scene.box.xmin, scene.box.ymin)
    assert (box.xmax, box.ymax) == (scene.box.xmax, scene.box.ymax)
    assert box.name == "n00000007"


# The splits ---------------------------------------------------------------------------------


def test_no_digit_is_in_both_splits_and_none_is_lost(
    train_sources: Sources, val_sources: Sources
) -> None:
    train, val = train_sources, val_sources
    digits = np.concatenate([train.labels, val.labels])
    parts = [demo_scene.split_digits(digits, split) for split in (TRAIN, VAL)]
    assert [len(part) for part in parts] == [len(train.labels), demo_scene.VAL_DIGITS]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    assert not {sheet.tobytes() for sheet in train.sheets} & {s.tobytes() for s in val.sheets}
    assert np.bincount(val.labels, minlength=10).min() >= 25


def test_no_column_of_a_photograph_is_in_both_splits(
    train_sources: Sources, val_sources: Sources
) -> None:
    train, val = train_sources, val_sources
    for index, (left, right) in enumerate(zip(train.photographs, val.photographs, strict=True)):
        width = left.shape[1] + right.shape[1]
        parts = [demo_scene.split_columns(width, index, split) for split in (TRAIN, VAL)]
        columns = [set(range(*part.indices(width))) for part in parts]
        assert not columns[0] & columns[1]
        assert columns[0] | columns[1] == set(range(width))
        assert (left.shape[1], right.shape[1]) == (len(columns[0]), len(columns[1]))
    whole = [demo_scene._read_photograph(*where) for where in demo_scene._PHOTOGRAPHS[:2]]
    assert np.array_equal(np.hstack([train.photographs[0], val.photographs[0]]), whole[0])
    assert np.array_equal(np.hstack([val.photographs[1], train.photographs[1]]), whole[1])


# The scenes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("label", range(10))
def test_the_box_is_tight_around_the_ink(train_sources: Sources, label: int) -> None:
    black = over_grey(train_sources, 0)
    for seed in range(5):
        scene = draw_scene(black, label, rng(seed))
        rows, columns = (np.flatnonzero(scene.image.max(axis=(axis, 2))) for axis in (1, 0))
        box = scene.box
        assert (rows[0], rows[-1] + 1) == (box.ymin, box.ymax)
        assert (columns[0], columns[-1] + 1) == (box.xmin, box.xmax)
        assert scene.label == label


def test_ink_is_brighter_than_what_lies_around_it_even_on_white(train_sources: Sources) -> None:
    white = over_grey(train_sources, 255)
    for seed in range(20):
        scene = draw_scene(white, 8, rng(seed))
        box = scene.box
        inside = cv2.cvtColor(scene.image, cv2.COLOR_BGR2GRAY)[
            box.ymin : box.ymax, box.xmin : box.xmax
        ]
        assert np.percentile(inside, 90) - np.percentile(inside, 5) > 80


def test_digits_are_off_the_centre_yet_in_the_central_square(val_sources: Sources) -> None:
    offsets = []
    for seed in range(60):
        scene = draw_scene(val_sources, seed % 10, rng(seed))
        box, (height, width) = scene.box, scene.image.shape[:2]
        short = min(height, width)
        for low, high, side in ((box.xmin, box.xmax, width), (box.ymin, box.ymax, height)):
            margin = demo_scene.OVERHANG * (high - low) + 1
            assert low >= (side - short) / 2 - margin
            assert high <= (side + short) / 2 + margin
            offsets.append(abs((low + high - side) / 2) / short)
    assert np.mean(offsets) > 0.08


def test_a_digit_larger_than_the_image_is_shrunk_into_it(
    train_sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_scene, "INK_SIZE", (1.4, 1.5))
    for seed in range(5):
        scene = draw_scene(over_grey(train_sources, 0), 0, rng(seed))
        short = min(scene.image.shape[:2])
        assert (
            short - 2
            <= max(scene.box.xmax - scene.box.xmin, scene.box.ymax - scene.box.ymin)
            <= short
        )


# Whole or not at all, and the same every time -----------------------------------------------


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_threads(
    small: DemoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    again = make_demo(tmp_path / "again", **COUNTS)
    assert tree(again.root) == tree(small.root)
    other = make_demo(tmp_path / "other", **COUNTS, seed=1)
    assert set(tree(other.root)) == set(tree(small.root))
    name = "train/n00000000/n00000000_1.JPEG"
    assert tree(other.root)[name] != tree(small.root)[name]


def test_more_images_leave_the_first_ones_as_they_are(small: DemoSet, tmp_path: Path) -> None:
    fewer = tree(make_demo(tmp_path / "fewer", train=20, val=15).root)
    images = {name: digest for name, digest in fewer.items() if name.endswith((".JPEG", ".xml"))}
    assert len(images) == 2 * (20 + 15)
    assert images.items() <= tree(small.root).items()


def test_a_complete_set_is_reused_and_another_seed_replaces_it(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    root = tmp_path / "set"
    first = make_demo(root, train=10, val=10, progress=lambda *args: calls.append(args))
    assert calls[-1] == (20, 20)
    assert not first.reused
    assert json.loads((root / demo.MARKER).read_text()) == {
        "version": demo.VERSION, "seed": 0, "train": 10, "val": 10,
    }  # fmt: skip
    before = root.stat().st_mtime_ns, tree(root)
    second = make_demo(root, train=10, val=10, progress=lambda *_: pytest.fail("made again"))
    assert second.reused
    assert (root.stat().st_mtime_ns, tree(root)) == before
    assert not make_demo(root, train=10, val=10, seed=5).reused
    assert tree(root) != before[1]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_interrupted_build_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    make_demo(root, train=10, val=10)
    before = tree(root)
    real = demo._write_scene

    def full_disk(work: Path, split: int, index: int, scene: Scene) -> None:
        if split == VAL:
            raise OSError(28, "No space left on device")
        real(work, split, index, scene)

    monkeypatch.setattr(demo, "_write_scene", full_disk)
    with pytest.raises(DataError, match=r"set: the data set cannot be written: No space left .*"):
        make_demo(root, train=10, val=10, seed=1)
    with pytest.raises(DataError, match=r"free some space .*; nothing was replaced"):
        make_demo(tmp_path / "new", train=10, val=10)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert tree(root) == before


def test_a_rename_that_fails_puts_the_old_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    make_demo(root, train=10, val=10)
    before = tree(root)
    real = Path.rename

    def rename(self: Path, target: str | Path) -> Path:
        if self.suffix == ".tmp":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(DataError, match="Input/output error"):
        make_demo(root, train=10, val=10, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert tree(root) == before


# Bad input ----------------------------------------------------------------------------------


def test_a_folder_or_file_of_another_program_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name in ("mine", "file"):
        with pytest.raises(DataError, match="holds something that is not the embedded data set"):
            make_demo(tmp_path / name, train=10, val=10)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "a file"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="choose a folder you may write to"):
        make_demo(tmp_path / "file" / "set", train=10, val=10)


@pytest.mark.parametrize("counts", [{"train": 9}, {"val": 0}])
def test_fewer_images_than_classes_are_refused(tmp_path: Path, counts: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"too few (train|val) images; expected at least 10"):
        make_demo(tmp_path / "set", **counts)


def test_a_photograph_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (("skimage.data", "absent.png"), ("skimage.gone", "astronaut.png")):
        monkeypatch.setattr(demo_scene, "_PHOTOGRAPHS", (where,))
        with pytest.raises(DataError, match=f"{where[0]}/{where[1]}: photograph .* is missing"):
            load_sources(TRAIN)


def test_a_photograph_that_does_not_decode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_scene, "_PHOTOGRAPHS", (("skimage.data", "__init__.py"),))
    with pytest.raises(DataError, match=r"__init__\.py: photograph does not decode; expected"):
        load_sources(TRAIN)


def test_what_a_killed_run_left_goes_with_the_next_one(tmp_path: Path) -> None:
    for name in (".set.0123abcd.tmp", ".set.0123abcd.old"):
        (tmp_path / name / "train").mkdir(parents=True)
    (tmp_path / ".other.0123abcd.tmp").mkdir()
    make_demo(tmp_path / "set", train=10, val=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.0123abcd.tmp", "set"]


def test_a_folder_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "set").symlink_to("real")
    for seed in (0, 1):
        make_demo(tmp_path / "set", train=10, val=10, seed=seed)
        assert (tmp_path / "set").is_symlink() and (tmp_path / "real" / "val.txt").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real", "set"]
