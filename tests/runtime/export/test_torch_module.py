"""The generated PyTorch module: its code, and its outputs where torch is installed."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen.errors import UnsupportedError
from runtime.cli.main import main
from runtime.export.torch_module import compare_torch, export_torch, torch_source
from runtime.weights.net_weights import save
from tests.runtime.export.test_onnx_model import LAYERS, PAIRS, POOL, needs_onnx, net_of
from tests.runtime.export.test_onnx_options import positive
from tests.runtime.small_net import SMALL, build

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")


@needs_onnx
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_code_that_computes_the_same(name: str) -> None:
    with build(net_of(LAYERS[name]), seed=11) as net:
        source, state = torch_source(positive(net), "x.safetensors")
        ast.parse(source)
        difference = compare_torch(net, source, state)
    assert difference is None or difference < 4e-6


@needs_onnx
@pytest.mark.parametrize("name", sorted(set(PAIRS) - {"prior_box", "interp"}))
def test_a_layer_of_two_bottoms_computes_the_same(name: str) -> None:
    with build(net_of(PAIRS[name], second=True), seed=11) as net:
        difference = compare_torch(net, *torch_source(positive(net), "x.safetensors"))
    assert difference is None or difference < 4e-6


@needs_onnx
def test_the_state_has_the_names_of_the_layers(tmp_path: Path) -> None:
    with build(SMALL, seed=3) as net:
        export_torch(net, tmp_path / "small.py")
        data = (tmp_path / "small.safetensors").read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert {"conv1.weight", "conv1.bias", "fc6.weight", "fc7.bias"} <= set(header)
        assert 'load("small.safetensors")' in (tmp_path / "small.py").read_text()


@needs_onnx
@needs_torch
def test_the_files_are_a_module_of_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(SMALL)
    with build(SMALL, seed=3) as net:
        save(net, "w.caffemodel")
        words = ["--model", "deploy.prototxt", "--weights", "w.caffemodel", "--to", "torch"]
        assert main(["export", *words, "--out", "small.py", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["difference"] < 1e-5
        scope: dict = {}
        exec(Path("small.py").read_text(), scope)
        module = scope["load"]("small.safetensors")
        shape = (5, *net.blobs[net.inputs[0]].shape[1:])
        x = np.random.default_rng(0).standard_normal(shape, np.float32)
        net.blobs[net.inputs[0]].reshape(shape)
        net.reshape()
        net.blobs[net.inputs[0]].data.mutable_host()[...] = x
        net.forward()
        result = module(torch.from_numpy(x))
        result = result[0] if isinstance(result, tuple) else result
        want = net.blobs[net.outputs[0]].data.host()
        np.testing.assert_allclose(result.detach().numpy(), want, rtol=1e-3, atol=1e-6)
        # Its parameters can be trained.
        result.sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


@needs_onnx
@pytest.mark.parametrize("name", ["forward", "type", 'a\\"\\"\\"b', "a.b", "0", "_modules"])
def test_names_of_layers_are_only_names(name: str) -> None:
    with build(SMALL.replace('name: "fc7"', f'name: "{name}"'), seed=3) as net:
        source, state = torch_source(net, 'x".safetensors')
        ast.parse(source)
        difference = compare_torch(net, source, state)
    assert difference is None or difference < 1e-5


@needs_onnx
def test_what_has_no_form() -> None:
    size = "upsample_param { upsample_h: 7 upsample_w: 9 }"
    pool = f"Pooling({POOL} kernel_size: 2 stride: 2 }}) x -> p mask"
    with (
        build(net_of(pool, f"Upsample({size}) p mask -> y")) as net,
        pytest.raises(UnsupportedError, match="no PyTorch form here for the operator"),
    ):
        torch_source(net, "x.safetensors")


@needs_onnx
def test_the_name_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(SMALL)
    with build(SMALL, seed=3) as net:
        save(net, "w.caffemodel")
    words = ["--model", "deploy.prototxt", "--weights", "w.caffemodel", "--to", "torch"]
    assert main(["export", *words, "--out", "small.pt"]) == 2
    assert "expected a name that ends in .py" in capsys.readouterr().err
