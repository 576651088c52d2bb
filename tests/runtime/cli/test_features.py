"""`verydeep features`: from images to the number, on tiny trees of VOC and Caltech."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen.errors import UsageError
from runtime.cli.features import parse_grid
from runtime.cli.main import main
from runtime.paper.features.feature_file import read_features
from tests.data_prep.class_folders import write_folders
from tests.data_prep.small_trees import COLOURS, write_actions, write_caltech, write_voc
from tests.runtime.evaluate.toy_net import write_net

Shown = pytest.CaptureFixture[str]


class Toy:
    """A net with random weights, and what its commands print."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = write_net(root / "net")
        self.weights = root / "net" / "toy.caffemodel"

    def extract(self, data: Path, out: str, *more: str) -> list[str]:
        words = ["features", "extract", "--model", self.model, "--weights", self.weights]
        words += ["--data", data, "--scales", "16,20", "--out", self.root / out, *more]
        words += ["--cache", self.root / "cache"]
        return [str(word) for word in words]

    def evaluate(self, task: str, data: Path, files: list[str], *more: str) -> list[str]:
        words = ["features", "evaluate", "--task", task, "--data", str(data), *more]
        return [*words, "--features", *(str(self.root / name) for name in files)]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


def printed(words: list[str], shown: Shown) -> Any:
    """Run a command that prints JSON."""
    status = main([*words, "--json"])
    captured = shown.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out)


def test_voc_from_images_to_mean_ap(toy: Toy, capsys: Shown) -> None:
    data = write_voc(toy.root / "VOC2007", {"trainval": 30, "test": 14})
    extracted = printed(toy.extract(data, "voc.h5"), capsys)
    assert (extracted["images"], extracted["dimension"], extracted["scales"]) == (44, 9, [16, 20])
    assert read_features(toy.root / "voc.h5").attributes["net"] == "toy"
    found = printed(toy.evaluate("voc2007", data, ["voc.h5"]), capsys)
    assert found["measure"] == "11-point AP"
    (split,) = found["splits"]
    assert set(split["classes"]) == set(COLOURS)
    assert found["mean"] == pytest.approx(sum(split["classes"].values()) / 3)
    # Colours separate the classes, even with random weights.
    assert found["mean"] > 0.9
    assert found["features"][0]["weights_sha256"] == extracted["weights_sha256"]
    ours = {row["method"]: row["value"] for row in found["paper"] if "VGG" in row["method"]}
    assert ours == {
        "VGG Net-D (16 layers)": 89.3,
        "VGG Net-E (19 layers)": 89.3,
        "VGG Net-D & Net-E": 89.7,
    }


def test_the_text_lists_everything_the_result_depends_on(toy: Toy, capsys: Shown) -> None:
    data = write_caltech(toy.root / "caltech", 9)
    assert main(toy.extract(data, "c.npz", "--aggregate", "stack")) == 0
    shown = capsys.readouterr().out
    assert f"{toy.root}/c.npz: 27 x 18 features" in shown
    assert "aggregate: stack" in shown
    counts = ["--train-per-class", "5", "--test-per-class", "4"]
    assert main(toy.evaluate("caltech101", data, ["c.npz", "c.npz"], *counts)) == 0
    shown = capsys.readouterr().out
    for part in (
        "mean class recall: ",
        " ± ",
        "seed 0: 5 training images per class, up to 4 others for testing; 3 classes",
        "one-vs-rest LinearSVC, C = ",
        "of 0.1, 0.3, 1, 3, 10, 30, 100 by 20% of the training images held out (seed 0)",
        "; 36 features",
        "sha256 ",
        "Q = 16, 20, stacked over scales; L2-normalised",
        "Table 11 of the paper, mean class recall in per cent",
        "VGG Net-D & Net-E        92.7 ± 0.5",
        "measured here",
    ):
        assert part in shown, part


def test_boxes_separate_two_people_in_one_image(toy: Toy, capsys: Shown) -> None:
    data = write_actions(toy.root / "VOC2012", {"train": 24, "val": 10})
    printed(toy.extract(data, "images.h5", "--set", "Action"), capsys)
    extracted = printed(toy.extract(data, "boxes.h5", "--boxes"), capsys)
    assert (extracted["images"], extracted["regions"]) == (68, "boxes")
    alone = printed(toy.evaluate("action2012", data, ["images.h5"]), capsys)
    both = printed(toy.evaluate("action2012", data, ["images.h5", "boxes.h5"]), capsys)
    assert both["dimension"] == 2 * alone["dimension"]
    assert both["mean"] > 0.95 > 0.75 > alone["mean"]


def test_a_single_c_is_used_without_selection(toy: Toy, capsys: Shown) -> None:
    data = write_caltech(toy.root / "caltech", 5)
    printed(toy.extract(data, "c.h5", "--no-flip", "--layer", "fc3"), capsys)
    counts = ["--train-per-class", "3", "--splits", "1", "--C", "2"]
    found = printed(toy.evaluate("caltech256", data, ["c.h5"], *counts), capsys)
    assert (found["splits"][0]["C"], found["splits"][0]["held_out"], found["std"]) == (2, {}, None)
    assert "C = 2 (given)" in found["classifier"]
    assert found["features"][0]["layer"] == "fc3"
    assert not found["features"][0]["flip"]


def test_errors_of_bad_input(toy: Toy, capsys: Shown) -> None:
    data = write_voc(toy.root / "voc", {"trainval": 6, "test": 3})

    def refused(words: list[str]) -> str:
        assert main(words) == 2
        return capsys.readouterr().err

    assert "expected a name that ends in .h5" in refused(toy.extract(data, "f.txt"))
    assert "no blob 'fc9'; expected one of data" in refused(
        toy.extract(data, "f.h5", "--layer", "fc9")
    )
    assert "--mean-value: expected numbers" in refused(
        toy.extract(data, "f.h5", "--mean-value", "a")
    )
    assert "f.h5: the features cannot be read" in refused(toy.evaluate("voc2007", data, ["f.h5"]))
    assert main(toy.extract(data, "f.h5")) == 0
    capsys.readouterr()
    assert "no lists of the split 'val'" in refused(
        toy.evaluate("voc2007", data, ["f.h5"], "--test", "val")
    )
    assert "no PASCAL VOC" in refused(toy.evaluate("voc2007", toy.root / "net", ["f.h5"]))
    (data / "JPEGImages" / "000001.jpg").unlink()
    lost = refused(toy.extract(data, "g.h5", "--no-flip"))
    assert "JPEGImages/000001.jpg: cannot be read: No such file" in lost
    assert not (toy.root / "g.h5").exists()
    (data / "JPEGImages" / "000001.jpg").write_bytes(b"no picture")
    assert "record JPEGImages/000001.jpg: the image does not decode" in refused(
        toy.extract(data, "g.h5", "--no-flip")
    )
    with pytest.raises(UsageError, match="--C: expected numbers separated by commas, got '1;"):
        parse_grid("1;2")


def own_classes(toy: Toy, capsys: Shown) -> Path:
    """A folder of classes, its features in own.h5, and SVMs on them in svm.npz."""
    data = write_folders(toy.root / "set", 12)
    printed(toy.extract(data, "own.h5", "--mean-value", "90,90,90"), capsys)
    save = ("--save", str(toy.root / "svm.npz"))
    found = printed(toy.evaluate("folder", data, ["own.h5"], *save), capsys)
    assert found["mean"] > 0.9
    assert found["protocol"].startswith("not a protocol of the paper: trained on 30 images")
    assert found["paper"] == []
    return data


def test_a_saved_svm_classifies_new_images(toy: Toy, capsys: Shown) -> None:
    own_classes(toy, capsys)
    others = write_folders(toy.root / "new", 2, seed=5)
    images = [str(others / name / f"{n}.jpg") for name in COLOURS for n in range(2)]
    words = ["features", "apply", *images, "--svm", str(toy.root / "svm.npz")]
    words += ["--model", str(toy.model), "--weights", str(toy.weights), "--mean-value", "90,90,90"]
    results = printed(words, capsys)
    assert [result["image"] for result in results] == images
    best = [result["predictions"][0]["label"] for result in results]
    assert best == [name for name in COLOURS for _ in range(2)]
    assert main([*words, "--top", "1"]) == 0
    assert capsys.readouterr().out.count(' - "') == len(images)


def test_a_saved_svm_is_applied_to_a_file_of_features(toy: Toy, capsys: Shown) -> None:
    own_classes(toy, capsys)
    words = ["features", "apply", "--svm", str(toy.root / "svm.npz")]
    results = printed([*words, "--features", str(toy.root / "own.h5")], capsys)
    assert len(results) == 36
    right = [r["image"].split("/")[0] == r["predictions"][0]["label"] for r in results]
    assert sum(right) >= 34


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--mean-value", "1,1,1"), "another preprocessing; expected .*mean 90, 90, 90"),
        (("--top", "0"), "--top: expected at least 1"),
    ],
)
def test_an_svm_is_applied_to_its_own_features_only(
    toy: Toy, capsys: Shown, more: tuple[str, ...], message: str
) -> None:
    data = own_classes(toy, capsys)
    words = ["features", "apply", str(data / "cat" / "0.jpg"), "--svm", str(toy.root / "svm.npz")]
    words += ["--model", str(toy.model), "--weights", str(toy.weights), *more]
    assert main(words) == 2
    assert re.search(message, capsys.readouterr().err)


def test_images_and_features_exclude_each_other(toy: Toy, capsys: Shown) -> None:
    own_classes(toy, capsys)
    words = ["features", "apply", "--svm", str(toy.root / "svm.npz")]
    assert main(words) == 2
    assert "expected images with --model, or --features, got neither" in capsys.readouterr().err
    assert main([*words, "x.jpg"]) == 2
    assert "--model: missing" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"])
def test_a_damaged_svm_is_refused(tmp_path: Path, capsys: Shown, content: bytes) -> None:
    (tmp_path / "svm.npz").write_bytes(content)
    assert main(["features", "apply", "x.jpg", "--svm", str(tmp_path / "svm.npz")]) == 2
    assert "svm.npz: the SVM cannot be read" in capsys.readouterr().err


def test_svms_of_several_splits_are_not_saved(toy: Toy, capsys: Shown) -> None:
    data = write_caltech(toy.root / "caltech", 9)
    words = toy.evaluate("caltech101", data, ["x.h5"], "--save", str(toy.root / "svm.npz"))
    assert main([*words, "--train-per-class", "3"]) == 2
    assert "--save: 3 splits have an SVM each; expected one" in capsys.readouterr().err
