"""`verydeep export` of bundles and dense nets, with the flags of ONNX, and to safetensors."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen.errors import SnapshotError
from runtime.cli.main import main
from runtime.export.safetensors import tensors_of
from runtime.net import Net
from runtime.weights.net_weights import save
from tests.runtime.bundle.bundles import LABELS, small_bundle
from tests.runtime.export.test_onnx_model import needs_onnx, needs_runtime
from tests.runtime.inference.test_model import DENSE, write
from tests.runtime.small_net import SMALL, build


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stored(path: str) -> dict[str, str]:
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@needs_onnx
def test_a_bundle_gives_labels_and_mean(capsys: pytest.CaptureFixture[str]) -> None:
    small_bundle(Path()).write("b.verydeep")
    words = ["export", "--model", "b.verydeep", "--to", "onnx", "--out", "b.onnx", "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["batch"], result["opset"]) == ("any", 13)
    assert json.loads(stored("b.onnx")["labels"]) == list(LABELS)
    assert json.loads(stored("b.onnx")["mean_value"]) == [104, 117, 123]
    assert main([*words, "--preprocess", "--opset", "18", "--fp16"]) == 0
    assert main([*words, "--mean-value", "1,2,3"]) == 0
    assert json.loads(stored("b.onnx")["mean_value"]) == [1, 2, 3]


@needs_runtime
def test_a_dense_net_takes_images_of_any_size() -> None:
    import onnxruntime

    model, weights = write(Path(), DENSE)
    words = ["export", "--model", str(model), "--weights", str(weights), "--to", "onnx"]
    assert main([*words, "--out", "d.onnx", "--any-size"]) == 0
    session = onnxruntime.InferenceSession("d.onnx")
    (got,) = session.run(None, {"data": np.zeros((5, 3, 31, 17), np.float32)})
    assert got.shape == (5, 8, 16, 9)


@needs_onnx
def test_a_net_of_a_fixed_batch_is_exported_with_a_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    layers = DENSE + (
        'layer { name: "s" type: "Slice" bottom: "pool" top: "a" top: "b" slice_param { axis: 0 } }'
    )
    model, weights = write(Path(), layers)
    words = ["export", "--model", str(model), "--weights", str(weights), "--to", "onnx"]
    assert main([*words, "--out", "s.onnx"]) == 0
    assert "takes the batch of the prototxt alone" in capsys.readouterr().err
    Path("s.onnx").unlink()
    assert main([*words, "--out", "s.onnx", "--batch", "any"]) == 2
    assert "--batch fixed" in capsys.readouterr().err
    assert not Path("s.onnx").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "deploy.prototxt"], "--weights: missing; expected the weights of --model"),
        (["--model", "b.verydeep", "--weights", "w.npz"], "given with the bundle b.verydeep"),
        (["--model", "b.verydeep", "--fp16", "--to", "npz"], "--fp16: has no effect with --to npz"),
        (["--model", "b.verydeep", "--mean-value", "1,2"], "expected 1 number or 3"),
        (["--model", "b.verydeep", "--mean-value", "1,2,300"], "each from 0 to 255"),
        (["--model", "b.verydeep", "--mean-value", "nan"], "each from 0 to 255"),
        (["--model", "b.verydeep", "--short-side", "3"], "expected at least the side"),
        (["--model", "b.verydeep", "--input-scale", "0"], "expected a number above 0"),
        (["--model", "deploy.prototxt", "--weights", "deploy.prototxt.caffemodel", "--preprocess"],
         "--preprocess: the mean is unknown"),
        (["--model", "b.verydeep", "--labels", "absent.txt"], "absent.txt"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small_bundle(Path()).write("b.verydeep")
    assert main(["export", "--to", "onnx", "--out", "x.onnx", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("x.onnx").exists()


@contextlib.contextmanager
def saved(layers: str = SMALL) -> Iterator[Net]:
    Path("deploy.prototxt").write_text(layers)
    with build(layers, seed=21) as net:
        save(net, "w.caffemodel")
        yield net


def safetensors(out: str) -> int:
    words = ["export", "--model", "deploy.prototxt", "--weights", "w.caffemodel"]
    return main([*words, "--to", "safetensors", "--out", out])


def test_safetensors_have_the_names_of_the_layers() -> None:
    with saved() as net:
        assert safetensors("w.safetensors") == 0
        data = Path("w.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        assert list(header) == [
            f"{name}.{part}" for name in ("conv1", "fc6", "fc7") for part in ("weight", "bias")
        ]
        start, stop = header["fc6.weight"]["data_offsets"]
        values = np.frombuffer(data[8 + size + start : 8 + size + stop], "<f4")
        want = net.layer_by_name("fc6").blobs[0].data.host()
        np.testing.assert_array_equal(values.reshape(header["fc6.weight"]["shape"]), want)


@pytest.mark.skipif(
    importlib.util.find_spec("safetensors") is None, reason="safetensors is not installed"
)
def test_safetensors_are_read_by_the_library() -> None:
    from safetensors.numpy import load_file

    with saved() as net:
        assert safetensors("w.safetensors") == 0
        for name, values in load_file("w.safetensors").items():
            layer, _, part = name.rpartition(".")
            blob = net.layer_by_name(layer).blobs[part == "bias"]
            np.testing.assert_array_equal(values, blob.data.host())


def test_two_weights_of_one_name() -> None:
    layers = SMALL.replace('name: "fc7"', 'name: "fc6"')
    with (
        build(layers) as net,
        pytest.raises(SnapshotError, match=r"two weights named 'fc6\.weight'"),
    ):
        tensors_of(net)
