"""`verydeep test` and `verydeep time`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ProtoError
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.cli.test import test_data_options as options_beside
from runtime.logs.glog import close_logging
from runtime.net import Net
from runtime.weights.net_weights import save

NET = """
name: "scored"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 }
    data_filler { type: "constant" value: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 2 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "net.prototxt").write_text(NET)
    with Net(text.parse(NET, proto.NetParameter), proto.TEST, create_backend("cpu")) as net:
        layer = net.layer_by_name("ip")
        assert layer is not None
        layer.blobs[1].data.mutable_host()[...] = [0.0, 2.0]
        save(net, tmp_path / "w.caffemodel")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    close_logging()


SCORE = ["test", "--model", "net.prototxt", "--weights", "w.caffemodel", "--iterations", "2"]


def test_scores_in_caffes_lines(capsys: Out) -> None:
    assert main(SCORE) == 0
    out, err = capsys.readouterr()
    # Zero weights and biases (0, 2): every image is of class 1, with the loss ln(1 + e^-2).
    means = ["Loss: 0.126928", "accuracy = 1", "loss = 0.126928 (* 1 = 0.126928 loss)"]
    assert out.splitlines() == means
    said = [line.partition("] ")[2] for line in err.splitlines() if " caffe.cpp:" in line]
    batches = [f"Batch {i}, {what}" for i in (0, 1) for what in ("accuracy = 1", "loss = 0.126928")]
    assert said == ["Use CPU.", "Running for 2 iterations.", *batches, *means]


def test_scores_as_json(capsys: Out) -> None:
    assert main([*SCORE, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["outputs"]["accuracy"] == 1 and result["loss"] == pytest.approx(0.126928)


def test_a_table_of_times(capsys: Out) -> None:
    assert main(["time", "-model", "net.prototxt", "-iterations", "2", "-phase=TEST"]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    both = ["forward", "backward"]
    assert rows[0] == ["layer", "type", *both, *both, "algorithm"]
    assert rows[1] == ["ms", "ms", "GFLOP/s", "GFLOP/s"]
    assert [row[0] for row in rows[2:5]] == ["data", "label_data_1_split", "conv"]
    conv = next(row for row in rows if row[:1] == ["conv"])
    assert len(conv) == 7 and min(float(value) for value in conv[2:6]) >= 0 < float(conv[2])
    assert re.search(r"^batch size: \d+$", out, re.M)
    for name in ("forward", "backward", "forward and backward"):
        assert re.search(rf"^{name}: [\d.]+ images/s, [\d.]+ GFLOP/s$", out, re.M)
    for pattern in (
        r"Initial loss: 0\.693147",
        r"\*\*\* Benchmark begins \*\*\*",
        r"Testing for 2 iterations\.",
        r"Iteration: 2 forward-backward time: \S+ ms\.",
        r"      conv\tforward: \S+ ms\.",
        r"      conv\tbackward: \S+ ms\.",
        r"Average Forward pass: \S+ ms\.",
        r"Average Backward pass: \S+ ms\.",
        r"Average Forward-Backward: \S+ ms\.",
        r"Total Time: \S+ ms\.",
        r"\*\*\* Benchmark ends \*\*\*",
    ):
        assert re.search(pattern, err), pattern


def test_times_as_json_forward_only(capsys: Out) -> None:
    flags = ["--iterations", "1", "--forward_only", "--weights", "w.caffemodel", "--json"]
    assert main(["time", "--model", "net.prototxt", *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["backward_ms"] == 0 and result["forward_ms"] > 0
    rates = result["throughput"]
    assert (rates["backward"], rates["both"]) == (None, None)
    images = 1e3 * rates["batch"] / result["forward_ms"]
    assert rates["forward"]["images_per_s"] == pytest.approx(images)
    assert {"name": "conv", "type": "Convolution"}.items() <= result["layers"][1].items()
    assert result["layers"][1]["algorithm"] and result["layers"][2]["algorithm"] is None


def test_exact_convolutions_on_request(folder: Path, capsys: Out) -> None:
    """The table of times names the algorithm that was used."""
    wide = NET.replace("num_output: 4 kernel_size: 3", "num_output: 64 kernel_size: 3 pad: 1")
    (folder / "net.prototxt").write_text(wide)
    time = ["time", "--model", "net.prototxt", "--iterations", "1", "--json", "--forward_only"]
    found = []
    for flags in ([], ["--exact"]):
        assert main([*time, *flags]) == 0
        found.append(json.loads(capsys.readouterr().out)["layers"][1]["algorithm"])
    assert "winograd" in found[0] and "winograd" not in found[1]
    assert main([*time, "--device", "emu", "--exact"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--exact: the device is emu; expected the CPU, the one that offers this" in said


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
def test_launches_on_a_gpu(capsys: Out) -> None:
    time = ["time", "--model", "net.prototxt", "--iterations", "2", "--device", "emu"]
    assert main(time) == 0
    out = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in out if line}
    assert rows["layer"][6:] == ["launches", "replayed", "algorithm"]
    # The convolution with its bias; of its two gradients the weights' in a product and its sums.
    assert rows["conv"][6:] == [rows["conv"][6], "both", "implicit_gemm"]
    ahead, back = map(int, rows["conv"][6].split("+"))
    assert ahead >= 1 and back >= 2
    assert rows["ip"][6:] == ["2+3", "both"]
    # Labels are read on the host, and so is the loss, whose sum takes two launches.
    assert rows["loss"][4:] == ["5+1", "backward"]
    assert rows["data"][4:] == ["0+0"]
    assert out[-1].startswith("Forward and backward with replay: ")
    assert main([*time, "--json", "--forward_only", "--launch-by-launch"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "replayed_ms" not in found
    layer = found["layers"][2]
    assert (layer["name"], layer["forward_launches"], layer["backward_launches"]) == ("ip", 2, 0)
    assert not layer["forward_replayed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "--model", "net.prototxt", "--weights", "none"], "none"),
        (["test", "--model", "none", "--weights", "w.caffemodel"], "none: cannot be read"),
        ([*SCORE, "--iterations", "0"], "--iterations: expected at least 1, got 0"),
        (["time", "--model", "net.prototxt", "--iterations", "-1"], "--iterations: expected at"),
    ],
)
def test_errors_end_with_status_2(arguments: list[str], message: str, capsys: Out) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_images_are_read_as_in_training(folder: Path) -> None:
    assert options_beside("net.prototxt", None).short_side is None
    (folder / "solver.verydeep.toml").write_text("[data.test]\nshort_side = 64\n")
    assert options_beside("net.prototxt", None).short_side == 64
    (folder / "other.verydeep.toml").write_text("[data.test]\nshort_side = 32\n")
    assert options_beside("net.prototxt", "other.prototxt").short_side == 32
    with pytest.raises(ProtoError, match=r"several sidecars are in its folder .*--solver"):
        options_beside("net.prototxt", None)


def give_bias(value: float, layer: str = "ip") -> None:
    with Net(text.parse(NET, proto.NetParameter), proto.TEST, create_backend("cpu")) as net:
        found = net.layer_by_name(layer)
        assert found is not None
        found.blobs[1].data.mutable_host()[...] = value
        save(net, "w.caffemodel")


NOT_FINITE = "verydeep test: not finite: {}; expected finite numbers, got NaN or infinity"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_are_reported(value: float, capsys: Out) -> None:
    """The accuracy of NaN scores is 1, as in Caffe; that alone would look well."""
    give_bias(value)
    assert main(SCORE) == 1
    out, err = capsys.readouterr()
    assert NOT_FINITE.format("ip, loss") in err
    assert main([*SCORE, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["loss"] is None and result["outputs"]["loss"] is None
    assert result["not_finite"] == ["ip", "loss"]
    if value != value:
        assert "accuracy = 1" in out and result["outputs"]["accuracy"] == 1


def test_an_accuracy_alone_is_not_trusted(folder: Path, capsys: Out) -> None:
    give_bias(float("nan"))
    (folder / "net.prototxt").write_text(NET[: NET.index('layer { name: "loss"')])
    assert main(SCORE) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["Loss: 0", "accuracy = 1"]
    assert NOT_FINITE.format("ip") in err


def test_numbers_that_are_large_are_numbers(capsys: Out) -> None:
    give_bias(3e38)
    assert main(SCORE) == 0
    capsys.readouterr()


def test_weights_that_lack_a_layer_are_refused(folder: Path, capsys: Out) -> None:
    (folder / "net.prototxt").write_text(NET.replace('name: "ip"', 'name: "fc"'))
    assert main(SCORE) == 2
    assert "w.caffemodel: no weights for 1 of the net's layers (fc)" in capsys.readouterr().err
    assert main([*SCORE, "--allow-missing"]) == 0
    with Net(text.read_net("net.prototxt"), proto.TEST, create_backend("cpu")) as net:
        save(net, "w2.caffemodel")
    both = [word.replace("w.caffemodel", "w.caffemodel,w2.caffemodel") for word in SCORE]
    assert main(both) == 0


@pytest.mark.parametrize("files", [",", " , ,"])
def test_weights_that_name_no_file(files: str, capsys: Out) -> None:
    assert main(["test", "--model", "net.prototxt", "--weights", files]) == 2
    Path("solver.prototxt").write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed"\n')
    assert main(["train", "--solver", "solver.prototxt", "--weights", files]) == 2
    words = f"--weights: expected a file, or several with commas, got '{files}'"
    assert capsys.readouterr().err.count(words) == 2


def test_weights_that_the_net_lacks_are_named(capsys: Out) -> None:
    extra = """layer { name: "extra" type: "InnerProduct" bottom: "data" top: "extra"
      inner_product_param { num_output: 2 } }"""
    with Net(text.parse(NET + extra, proto.NetParameter), proto.TEST, create_backend("cpu")) as net:
        save(net, "w.caffemodel")
    line = "w.caffemodel: 1 layers of the file are not in the net (extra); their weights are not"
    assert main(SCORE) == 0
    assert capsys.readouterr().err.count(line) == 1
    assert main([*SCORE, "--allow-missing"]) == 0
    assert line not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["test", "extract_features"])
def test_inputs_without_data_are_named(verb: str, capsys: Out) -> None:
    begin, end = NET.index('layer { name: "data"'), NET.index('layer { name: "conv"')
    inputs = """layer { name: "data" type: "Input" top: "data" top: "label"
      input_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } } }"""
    Path("net.prototxt").write_text(NET[:begin] + inputs + NET[end:])
    call = ["extract_features", "w.caffemodel", "net.prototxt", "ip", "ip_db", "1"]
    assert main(SCORE if verb == "test" else call) == 0
    words = "net 'scored': nothing fills its inputs (data, label), so they are all 0"
    assert words in capsys.readouterr().err
