"""`verydeep visualise`: a picture of each kind, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.bundle.preprocessing import RGB, Preprocessing
from runtime.cli.main import main
from runtime.visual.pictures import pixels_of, stretched
from tests.runtime.bundle.bundles import LABELS, small_bundle
from tests.runtime.inference.test_images import picture, png

KINDS = ("filters", "activations", "saliency", "grad-cam", "occlusion", "class-image")


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_bundle(tmp_path).write("b.verydeep")
    Path("a.png").write_bytes(png(picture(1)))


def visualise(kind: str, *words: str) -> int:
    given = ["--image", "a.png"] if kind not in ("filters", "class-image") else []
    words = (*given, *words)
    return main(["visualise", kind, "--model", "b.verydeep", "--out", "x.png", *words])


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_each_kind(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    extra = ["--iterations", "3"] if kind == "class-image" else []
    assert visualise(kind, "--json", *extra) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["kind"], result["output"]) == (kind, "x.png")
    if "label" in result:
        assert result["label"] == LABELS[result["class"]]
    drawn = cv2.imread("x.png")
    assert min(drawn.shape[:2]) > 400
    assert drawn.std() > 5


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("saliency", ["--class", "5"], "--class 5: expected 0 to 4"),
        ("grad-cam", ["--layer", "fc"], "no blob 'fc' of maps"),
        ("activations", ["--layer", "fc"], "no blob 'fc' of maps (N,C,H,W); expected one of data"),
        ("filters", ["--image", "a.png"], "--image: has no effect on filters"),
        ("class-image", ["--iterations", "0"], "--iterations: expected 1 to"),
        ("class-image", ["--rate", "nan"], "--rate: expected a number above 0"),
        ("occlusion", ["--window", "99"], "--window 99"),
        ("saliency", ["--image", "absent.png"], "absent.png: cannot be read"),
        ("saliency", ["--out", "b.verydeep"], "b.verydeep"),
    ],
)
def test_flags_that_do_not_fit(
    kind: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visualise(kind, *words) == 2
    assert message in capsys.readouterr().err
    assert not Path("x.png").exists()


def test_an_image_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["visualise", "saliency", "--model", "b.verydeep", "--out", "x.png"]) == 2
    assert "--image: missing; expected the image of saliency" in capsys.readouterr().err


def test_the_pixels_of_a_prepared_image() -> None:
    pixels = picture(2, 5, 5)
    mean = np.float32([1, 2, 3]).reshape(3, 1, 1)
    values = (pixels[:, :, ::-1].transpose(2, 0, 1) - mean) / 4
    preparation = Preprocessing((5, 5), mean_value=(1.0, 2.0, 3.0), scale=0.25)
    np.testing.assert_array_equal(pixels_of(values, preparation), pixels)
    rgb = Preprocessing((5, 5), channel_order=RGB)
    np.testing.assert_array_equal(pixels_of(pixels.transpose(2, 0, 1), rgb), pixels)
    assert stretched(np.zeros((1, 2, 2), np.float32), rgb).tolist() == [[[127] * 3] * 2] * 2
