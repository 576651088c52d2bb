"""Test images are mirrored if training mirrored images; flags overrule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prototxt_gen import generate, text
from runtime.cli.main import main
from runtime.evaluate.flips import mirrors_in_training
from tests.data_prep.small_trees import write_caltech
from tests.runtime.evaluate.toy_net import write_images, write_net

Shown = pytest.CaptureFixture[str]

DATA = 'layer {{ name: "{name}" type: "{kind}" top: "{name}" {rest} }}'


def data_layer(kind: str = "Data", name: str = "data", rest: str = "") -> str:
    return DATA.format(name=name, kind=kind, rest=rest)


MIRROR = "transform_param { mirror: true }"
TRAIN, TEST = "include { phase: TRAIN }", "include { phase: TEST }"


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (data_layer(rest=f"{TRAIN} {MIRROR}"), True),
        (data_layer(rest=TRAIN), False),
        (data_layer(rest=f"{TRAIN} transform_param {{ crop_size: 8 mirror: false }}"), False),
        (data_layer(rest=MIRROR), True),
        (data_layer(rest=f"exclude {{ phase: TEST }} {MIRROR}"), True),
        (data_layer(rest=f"exclude {{ phase: TRAIN }} {MIRROR}"), None),
        (data_layer(rest='include { phase: TRAIN stage: "big" } ' + MIRROR), True),
        (data_layer(rest='include { stage: "big" } ' + MIRROR), True),
        (data_layer(rest=f"{TEST} {MIRROR}"), None),
        (data_layer(rest=f"{TEST} {MIRROR}") + data_layer(rest=TRAIN), False),
        (data_layer(rest=TRAIN) + data_layer(name="more", rest=f"{TRAIN} {MIRROR}"), True),
        (data_layer("ImageData", rest=f"{TRAIN} {MIRROR}"), True),
        (data_layer("ImageData", rest=TRAIN), False),
        (data_layer("MemoryData", rest=f"{TRAIN} {MIRROR}"), True),
        (data_layer("WindowData", rest=f"{TRAIN} {MIRROR}"), True),
        (data_layer("Python", rest=TRAIN), None),
        (data_layer("Input", rest="input_param { shape { dim: 1 } }"), None),
        ('input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8', None),
        (
            'layers { name: "d" type: DATA top: "d" include { phase: TRAIN } '
            "data_param { mirror: true } }",
            True,
        ),
        (
            'layers { name: "d" type: DATA top: "d" include { phase: TRAIN } '
            "transform_param { mirror: true } }",
            True,
        ),
    ],
)
def test_what_training_did(tmp_path: Path, net: str, expected: bool | None) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(net)
    assert mirrors_in_training(text.read_net(path)) is expected


class Toy:
    """A net with random weights whose training mirrors images, or one whose training does not."""

    def __init__(self, root: Path) -> None:
        self.source = write_images(root / "val", 3)
        self.mirrors = write_net(root / "net", str(self.source))
        self.weights = root / "net" / "toy.caffemodel"
        self.deploy = self.mirrors.with_name(generate.DEPLOY)
        self.plain = self.mirrors.with_name("plain.prototxt")
        net = self.mirrors.read_text()
        assert net.count("mirror: true") == 1
        self.plain.write_text(net.replace("mirror: true", "mirror: false"))

    def evaluate(self, model: Path, *more: str) -> list[str]:
        words = ["evaluate", "--model", model, "--weights", self.weights, "--scales", "18"]
        words += ["--source", self.source, "--no-cache", "--mean-value", "100,110,120", *more]
        return [str(word) for word in words]

    def fuse(self, models: list[Path], *more: str) -> list[str]:
        words = ["fuse", "--source", self.source, "--no-cache", "--mean-value", "1,2,3", *more]
        for model in models:
            words += ["--member", model, self.weights, "18"]
        return [str(word) for word in words]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return Toy(tmp_path_factory.mktemp("toy"))


def protocols(words: list[str], shown: Shown) -> tuple[list[str], str]:
    """The protocols of a command's nets, and what it wrote to stderr."""
    assert main([*words, "--json"]) == 0
    out, err = shown.readouterr()
    return [member["protocol"] for member in json.loads(out)["members"]], err


def test_evaluate_mirrors_if_training_did(toy: Toy, capsys: Shown) -> None:
    (protocol,), err = protocols(toy.evaluate(toy.mirrors), capsys)
    assert "averaged with the flip" in protocol
    assert f"{toy.mirrors}: training mirrored images; averaging with mirrored images" in err
    (protocol,), err = protocols(toy.evaluate(toy.plain), capsys)
    assert "without flips" in protocol
    assert "training did not mirror images; evaluating without mirrored images" in err


def test_a_net_without_training_data_is_mirrored_with_a_notice(toy: Toy, capsys: Shown) -> None:
    (protocol,), err = protocols(toy.evaluate(toy.deploy), capsys)
    assert "averaged with the flip" in protocol
    (line,) = [line for line in err.splitlines() if "mirrored" in line]
    assert line.endswith("averaging with mirrored images; --no-flip omits them")


def test_flags_overrule(toy: Toy, capsys: Shown) -> None:
    for model in (toy.mirrors, toy.plain, toy.deploy):
        for flag, words in (("--flip", "averaged with the flip"), ("--no-flip", "without flips")):
            (protocol,), err = protocols(toy.evaluate(model, flag), capsys)
            assert words in protocol
            assert "mirror" not in err


def test_crops_are_mirrored_by_the_same_rule(toy: Toy, capsys: Shown) -> None:
    crops = ("--protocol", "multicrop", "--grid", "2")
    for model, count in ((toy.mirrors, 8), (toy.plain, 4)):
        (protocol,), _ = protocols(toy.evaluate(model, *crops), capsys)
        assert f"{count} crops per scale" in protocol


def test_each_member_of_a_fusion_follows_its_own_training(toy: Toy, capsys: Shown) -> None:
    found, _ = protocols(toy.fuse([toy.mirrors, toy.plain]), capsys)
    assert ["without flips" in protocol for protocol in found] == [False, True]
    found, _ = protocols(toy.fuse([toy.mirrors, toy.plain], "--flip"), capsys)
    assert ["without flips" in protocol for protocol in found] == [False, False]


def test_features_follow_the_same_rule(toy: Toy, tmp_path: Path, capsys: Shown) -> None:
    data = write_caltech(tmp_path / "caltech", 1)
    words = ["features", "extract", "--weights", toy.weights, "--data", data, "--scales", "16"]
    words += ["--no-cache", "--json", "--mean-value", "1,2,3", "--out", tmp_path / "f.npz"]
    for model, flags, expected in (
        (toy.mirrors, [], True),
        (toy.plain, [], False),
        (toy.deploy, [], True),
        (toy.mirrors, ["--no-flip"], False),
        (toy.plain, ["--flip"], True),
    ):
        assert main([str(word) for word in (*words, "--model", model, *flags)]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["flip"] is expected
        assert ("mirror" in err) is not bool(flags)
