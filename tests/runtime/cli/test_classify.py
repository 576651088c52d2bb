"""`verydeep classify`: what it prints, and that it prepares images as a net in TEST does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep.lmdb_io import Writer
from data_prep.mean_file import write_mean
from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.logs.glog import close_logging
from runtime.net import Net
from runtime.weights.net_weights import copy_trained_layers, save
from tests.data_prep.small_images import photograph, record

LAYERS = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 0.002 } } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""
DEPLOY = (
    """layer { name: "in" type: "Input" top: "data"
    input_param { shape { dim: [10, 3, 14, 14] } } }"""
    + LAYERS
)
TEST = (
    """layer { name: "d" type: "Data" top: "data" data_param { source: "db" batch_size: 1
    backend: LMDB } transform_param { crop_size: 14 mean_value: [10, 20, 30] } }"""
    + LAYERS
)
Out = pytest.CaptureFixture[str]
NET = ["--model", "deploy.prototxt", "--weights", "w.caffemodel"]
CALL = ["classify", "a.png", *NET]
MEAN = ["--mean-value", "10,20,30"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(DEPLOY)
    context = RunContext(rng=CaffeRandom(4))
    with Net(text.read_net("deploy.prototxt"), 1, create_backend("cpu"), context) as net:
        save(net, "w.caffemodel")
    Path("labels.txt").write_text("".join(f"n{i} thing {i}\n" for i in range(6)))
    cv2.imwrite("a.png", photograph(16, 21))
    yield tmp_path
    close_logging()


def classified(capsys: Out, *args: str, images: tuple[str, ...] = ("a.png",)) -> Any:
    assert main(["classify", *images, *NET, "--json", *args]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_five_likeliest_are_printed(capsys: Out) -> None:
    assert main([*CALL, *MEAN, "--labels", "labels.txt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "---------- Prediction for a.png ----------"
    assert len(lines) == 6
    values = [float(line[:6]) for line in lines[1:]]
    assert values == sorted(values, reverse=True)
    assert all(re.fullmatch(r'0\.\d{4} - "n(\d) thing \1"', line) for line in lines[1:])


def test_one_path_with_the_nets_own_data(capsys: Out) -> None:
    with Writer("db") as writer:
        writer.put(b"0", record(photograph(16, 21), 0, encoded=False))
    param = text.parse(TEST, proto.NetParameter)
    with Net(param, proto.TEST, create_backend("cpu")) as net:
        copy_trained_layers(net, "w.caffemodel")
        net.forward()
        expected = net.blobs["prob"].data.host()[0]
    found = classified(capsys, *MEAN, "--short-side", "16", "--top", "9")[0]
    assert (found["image"], len(found["predictions"])) == ("a.png", 6)
    for each in found["predictions"]:
        assert each["probability"] == pytest.approx(expected[each["class"]], rel=1e-4)
        assert each["label"] == str(each["class"])
    assert classified(capsys, *MEAN, "--top", "9")[0] == found  # 16 is 8/7 of 14


def test_a_mean_file_and_ten_crops_and_several_images(capsys: Out) -> None:
    mean = np.broadcast_to(np.array([10.0, 20, 30])[:, None, None], (3, 4, 4))
    write_mean("mean.binaryproto", mean)
    cv2.imwrite("b.png", photograph(40, 30, 1))
    both = ("a.png", "b.png")
    by_value = classified(capsys, *MEAN, "--oversample", images=both)
    assert [each["image"] for each in by_value] == ["a.png", "b.png"]
    assert classified(capsys, "--mean", "mean.binaryproto", "--oversample", images=both) == by_value
    assert classified(capsys, *MEAN, images=both) != by_value
    close_logging()
    assert main([*CALL, "--json"]) == 0
    assert "neither --mean-value nor --mean: nothing is subtracted" in capsys.readouterr().err


def test_warped_images_and_grey_nets(capsys: Out) -> None:
    square = classified(capsys, *MEAN, "--images_dim", "20,20")
    assert square != classified(capsys, *MEAN)
    Path("deploy.prototxt").write_text(DEPLOY.replace("10, 3, 14, 14", "1, 1, 14, 42"))
    grey = classified(capsys, "--mean-value", "20", "--images_dim", "14,42", "--input_scale", "0")
    assert grey[0]["predictions"][0]["probability"] == pytest.approx(1 / 6, abs=1e-6)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--labels", "deploy.prototxt"], "labels for a net of 6 classes; expected a line for"),
        (["--labels", "none.txt"], "none.txt: the labels cannot be read"),
        (["--short-side", "13"], "--short-side: expected at least the side .* 14, got 13"),
        (["--images_dim", "13"], r"--images_dim: expected H,W, got 1 number\(s\)"),
        (["--images_dim", "nan,20"], r"--images_dim: expected whole numbers above 0, got \(nan"),
        (["--images_dim", "inf,20"], "--images_dim: expected whole numbers above 0, got"),
        (["--images_dim", "0,20"], "--images_dim: expected whole numbers above 0, got"),
        (["--images_dim", "90000,90000"], "a.png: a size of 90000x90000; expected at least 1x1"),
        (["--mean-value", "1,2"], "--mean-value: expected 1 value or one for each of 3 channels"),
        (["--images_dim", "12,20"], r"image_dims \(12, 20\) are smaller than the net's input"),
        (["--top", "0"], "--top: expected at least 1, got 0"),
        (["--model", "w.caffemodel"], "this is no prototxt"),
        (["--weights", "a.png"], "a.png"),
    ],
)
def test_what_a_user_may_get_wrong(capsys: Out, args: list[str], words: str) -> None:
    assert main([*CALL, *MEAN, *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("verydeep classify: ")
    assert re.search(words, error)


def test_an_image_that_cannot_be_used(capsys: Out) -> None:
    for name, words in (
        ("no.png", "verydeep classify: no.png: cannot be read: No such file"),
        ("labels.txt", "verydeep classify: labels.txt: the image does not decode"),
    ):
        assert main(["classify", "a.png", name, *NET, *MEAN]) == 2
        shown = capsys.readouterr()
        assert words in shown.err
        assert "Prediction for a.png" in shown.out


def test_a_net_that_takes_no_images(capsys: Out) -> None:
    Path("deploy.prototxt").write_text(DEPLOY.replace("10, 3, 14, 14", "10, 588"))
    assert main(CALL) == 2
    assert "expected an input of images (N,3,H,W) or (N,1,H,W), got (10, 588)" in (
        capsys.readouterr().err
    )
    with pytest.raises(SystemExit, match="2"):
        main([*CALL, "--mean-value", "a,b"])
    assert "expected numbers with commas between them, got 'a,b'" in capsys.readouterr().err


DENSE = DEPLOY.replace('"ip" type: "InnerProduct"', '"ip-conv" type: "Convolution"').replace(
    "inner_product_param { num_output: 6", "convolution_param { kernel_size: 14 num_output: 6"
)


def test_weights_of_another_net_are_refused(capsys: Out) -> None:
    Path("deploy.prototxt").write_text(DEPLOY.replace('"ip"', '"other"'))
    assert main([*CALL, *MEAN]) == 2
    out, err = capsys.readouterr()
    assert "w.caffemodel: no weights for 1 of the net's layers (other)" in err
    assert "--allow-missing" in err
    assert out == ""
    assert main([*CALL, *MEAN, "--allow-missing"]) == 0


def test_a_dense_net_takes_the_weights(capsys: Out) -> None:
    (expected,) = classified(capsys, *MEAN)
    Path("deploy.prototxt").write_text(DENSE)
    (dense,) = classified(capsys, *MEAN)
    for got, wanted in zip(dense["predictions"], expected["predictions"], strict=True):
        assert got["class"] == wanted["class"]
        assert got["probability"] == pytest.approx(wanted["probability"], rel=1e-4)
    assert main([*CALL, *MEAN]) == 0
    line = "w.caffemodel: InnerProduct weights converted to convolutions: ip as ip-conv"
    assert capsys.readouterr().err.count(line) == 1


def test_upgrade_writes_the_converted_weights(capsys: Out) -> None:
    Path("dense.prototxt").write_text(DENSE)
    assert main(["upgrade", "w.caffemodel", "d.caffemodel", "--model", "dense.prototxt"]) == 0
    assert "w.caffemodel: InnerProduct weights converted: ip-conv" in capsys.readouterr().err
    param = proto.NetParameter.FromString(Path("d.caffemodel").read_bytes())
    assert list(param.layer[1].blobs[0].shape.dim) == [6, 3, 14, 14]
    Path("dense.prototxt").write_text(DENSE.replace("ip-conv", "x"))
    assert main(["upgrade", "w.caffemodel", "e.caffemodel", "--model", "dense.prototxt"]) == 2
    assert not Path("e.caffemodel").exists()
