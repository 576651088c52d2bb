from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.cli.main import main
from runtime.weights.caffemodel import read_caffemodel
from runtime.weights.net_weights import copy_trained_layers, save
from tests.runtime.small_net import SMALL, build, same_weights, weights

HAS_ONNX = importlib.util.find_spec("onnx") is not None


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(SMALL)
    with build(SMALL, seed=21) as net:
        save(net, "w.caffemodel")


def export(*words: str) -> int:
    return main(["export", "--model", "deploy.prototxt", "--weights", *words])


@pytest.mark.parametrize("form", ["npz", "h5", "caffemodel", "v1"])
def test_every_format_holds_the_same_weights(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("w.caffemodel", "--to", form, "--out", "out", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "format": form,
        "output": "out",
        "parameters": 2573,
        "bytes": Path("out").stat().st_size,
    }
    assert "w.caffemodel: 3 layers loaded (2.6 k parameters), 0 missing, 0 unused" in err
    with build(SMALL) as net, build(SMALL) as other:
        copy_trained_layers(net, "w.caffemodel")
        copy_trained_layers(other, "out", strict=True)
        assert same_weights(other, weights(net))
    # And from there on.
    assert export("out", "--to", "caffemodel", "--out", "again") == 0
    assert Path("again").read_bytes() == Path("w.caffemodel").read_bytes()


def test_npz_is_numpy_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert export("w.caffemodel", "--to", "npz", "--out", "w.npz") == 0
    assert capsys.readouterr().out == "w.npz\n"
    found = np.load("w.npz")
    assert found.files == ["conv1/0", "conv1/1", "fc6/0", "fc6/1", "fc7/0", "fc7/1"]
    expected = read_caffemodel("w.caffemodel")[1].blobs[0].array()
    np.testing.assert_array_equal(found["conv1/0"], expected, strict=True)


def test_weights_that_do_not_suffice(capsys: pytest.CaptureFixture[str]) -> None:
    Path("deploy.prototxt").write_text(SMALL.replace('"fc7"', '"fc8"'))
    assert export("w.caffemodel", "--to", "npz", "--out", "w.npz") == 2
    err = capsys.readouterr().err
    assert "w.caffemodel: no weights for some layers; expected weights for every layer" in err
    assert "  missing  fc8" in err
    assert not Path("w.npz").exists()


@pytest.mark.skipif(not HAS_ONNX, reason="onnx is not installed: extra [onnx]")
def test_onnx_prints_how_it_was_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert export("w.caffemodel", "--to", "onnx", "--out", "w.onnx", "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["bytes"] == Path("w.onnx").stat().st_size
    if result["difference"] is None:
        assert "the model was not checked: onnxruntime is not installed" in err
    else:
        assert result["difference"] < 1e-5
        assert "checked with onnxruntime on random input: the outputs of the layers differ" in err


@pytest.mark.skipif(HAS_ONNX, reason="onnx is installed")
def test_onnx_without_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert export("w.caffemodel", "--to", "onnx", "--out", "w.onnx") == 2
    assert "pip install 'verydeep[onnx]'" in capsys.readouterr().err
    assert not Path("w.onnx").exists()


@pytest.mark.parametrize(
    ("form", "name", "complaint"),
    [
        ("h5", "conv1/0", "out: layers 'conv1' and 'conv1/0' meet in HDF5"),
        ("h5", "/fc7", "out: layer '/fc7' has no place in HDF5"),
        ("npz", "", "out: layer '' cannot be named in .npz; expected UTF-8 of 1 to 65000 bytes"),
        ("npz", r"a\000b", r"out: layer 'a\x00b' cannot be named in .npz"),
    ],
)
def test_names_that_a_format_does_not_hold(
    form: str, name: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = SMALL.replace('name: "fc7"', f'name: "{name}"')
    Path("deploy.prototxt").write_text(renamed)
    with build(renamed, seed=21) as net:
        save(net, "named.caffemodel")
    Path("out").write_text("precious")
    assert export("named.caffemodel", "--to", form, "--out", "out") == 2
    assert complaint in capsys.readouterr().err
    assert Path("out").read_text() == "precious"


BLOCKS = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 4, 9, 9] } } }
layer { name: "dw" type: "DepthwiseConvolution" bottom: "x" top: "dw"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BN" bottom: "dw" top: "bn" bn_param { momentum: 0.9 } }
layer { name: "gap" type: "Pooling" bottom: "bn" top: "gap"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "se" type: "Axpy" bottom: "gap" bottom: "bn" bottom: "x" top: "se" }
layer { name: "pool" type: "Pooling" bottom: "se" top: "pool"
  pooling_param { kernel_size: 2 stride: 2 ceil_mode: false } }
"""


def test_a_net_of_other_builds_as_bvlc_caffe_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("deploy.prototxt").write_text(BLOCKS)
    with build(BLOCKS, seed=2) as net:
        for blob in net.params.learnable:
            blob.data.mutable_host()[...] = np.abs(blob.data.host()) + 0.1
        save(net, "blocks.caffemodel")
        net.forward()
        x, want = (net.blobs[name].data.host().copy() for name in ("x", "pool"))
    assert export("blocks.caffemodel", "--to", "bvlc", "--out", "plain.caffemodel", "--json") == 0
    assert json.loads(capsys.readouterr().out)["prototxt"] == "plain.prototxt"
    assert main(["upgrade", "--check", "bvlc", "plain.prototxt"]) == 0
    assert main(["upgrade", "--check", "bvlc", "deploy.prototxt"]) == 1
    if hasattr(cv2.dnn, "readNetFromCaffe"):
        # OpenCV reads ceil_mode, but not round_mode.
        plain = Path("plain.prototxt").read_text()
        Path("opencv.prototxt").write_text(plain.replace("round_mode: FLOOR", "ceil_mode: false"))
        other = cv2.dnn.readNetFromCaffe("opencv.prototxt", "plain.caffemodel")
        other.setInput(x)
        np.testing.assert_allclose(other.forward("pool"), want, rtol=1e-4)


def test_the_model_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("deploy.prototxt").read_text()
    assert export("w.caffemodel", "--to", "bvlc", "--out", "deploy.caffemodel") == 2
    assert "its prototxt would replace --model deploy.prototxt" in capsys.readouterr().err
    assert Path("deploy.prototxt").read_text() == before
