"""Verbs read a bundle as --model: net, weights, labels, mean and size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from runtime.cli.main import main
from runtime.paper.features.feature_file import read_features
from tests.data_prep.class_folders import write_folders
from tests.runtime.bundle.bundles import LABELS, small_bundle

CLASSES = ("cat", "cow", "dog", "hen", "pig")


@pytest.fixture(params=["small.verydeep", "small.zip"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(small_bundle(tmp_path).write(tmp_path / request.param))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "set", 3, CLASSES)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> object:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_classify(
    bundle: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(images / "cat" / "0.jpg")
    plain = small_bundle(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(LABELS))
    explicit = printed(
        capsys,
        *("classify", image, "--model", str(plain.model), "--weights", str(plain.weights)),
        *("--mean-value", "104,117,123", "--short-side", "14"),
        *("--labels", str(tmp_path / "names.txt")),
    )
    assert printed(capsys, "classify", image, "--model", bundle) == explicit
    other = printed(capsys, "classify", image, "--model", bundle, "--mean-value", "0,0,0")
    assert other != explicit


def test_evaluate(bundle: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("evaluate", "--model", bundle, "--source", str(images), "--no-cache")
    result = printed(capsys, *words, "--protocol", "multicrop", "--grid", "1")
    assert result["images"] == 5
    member = result["members"][0]
    assert member["scales"] == [14]
    assert "mean 104, 117, 123" in member["preprocessing"]


def test_features(
    bundle: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features.npz"
    words = ("features", "extract", "--model", bundle, "--data", str(images), "--out", str(out))
    assert printed(capsys, *words, "--no-cache")["bundle"] == "small"
    assert len(read_features(out).names) == 15


def test_export(bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.npz"
    printed(capsys, "export", "--model", bundle, "--to", "npz", "--out", str(out))
    with np.load(out) as arrays:
        assert "conv1/0" in arrays


@pytest.mark.parametrize(
    "verb", ["classify x.jpg", "export --to npz --out x", "evaluate --source x"]
)
def test_weights_are_required_without_a_bundle(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb.split(), "--model", str(small_bundle(tmp_path).model)]) == 2
    assert "--weights: missing; expected" in capsys.readouterr().err


def test_scales_are_required_without_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = small_bundle(tmp_path)
    words = ["evaluate", "--model", str(plain.model), "--weights", str(plain.weights)]
    assert main([*words, "--source", "x"]) == 2
    assert "--scales: missing" in capsys.readouterr().err


def test_a_damaged_bundle_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_bundle(tmp_path).write(tmp_path / "m.verydeep")
    (folder / "labels.txt").write_text("other\n")
    assert main(["classify", "x.jpg", "--model", str(folder)]) == 2
    assert "labels.txt: 6 bytes; expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [({"scale": 0.5}, "pixels are multiplied by 0.5"), ({"channel_order": "RGB"}, "images in RGB")],
)
def test_preprocessing_that_evaluate_does_not_have(
    change: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = small_bundle(tmp_path)
    prepared = dataclasses.replace(first.preprocessing, **change)
    folder = dataclasses.replace(first, preprocessing=prepared).write(tmp_path / "m.verydeep")
    assert main(["evaluate", "--model", str(folder), "--source", "x"]) == 2
    assert message in capsys.readouterr().err
