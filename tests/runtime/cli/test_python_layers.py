"""Layers of type Python in the verbs that build nets."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from prototxt_gen.errors import UnsupportedError
from runtime.cli.main import main
from runtime.core.context import RunContext
from runtime.core.python_layers import FLAG, VARIABLE

LAYERS = '''
import caffe
import numpy as np

class Offset(caffe.Layer):
    """Adds a learnt number to each channel."""
    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].channels)
        self.blobs[0].data[...] = float(self.param_str or 0)
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        import caffe.io  # at run time as well
        assert caffe.TRAIN == 0
        top[0].data[...] = bottom[0].data + self.blobs[0].data.reshape(1, -1, 1, 1)
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += top[0].diff.sum(axis=(0, 2, 3))
        bottom[0].diff[...] = top[0].diff

class Failing(Offset):
    def forward(self, bottom, top):
        raise KeyError("nothing")

class Leaving(Offset):
    def setup(self, bottom, top):
        raise SystemExit("bye")

class Empty:
    def __init__(self, param):
        pass
'''

BODY = """
layer { name: "offset" type: "Python" bottom: "data" top: "offset"
  param { lr_mult: 1 } python_param { module: "my_layers" layer: "Offset" param_str: "2" } }
layer { name: "fc" type: "InnerProduct" bottom: "offset" top: "fc"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""
DATA = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param {
  shape { dim: 2 dim: 3 dim: 4 dim: 4 } data_filler { value: 1 } } }
layer { name: "label" type: "DummyData" top: "label" dummy_data_param {
  shape { dim: 2 } data_filler { value: 1 } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
PROB = 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }'
INPUT = """layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
"""
SOLVER = """net: "train.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 display: 1
test_iter: 1 test_interval: 2 snapshot_prefix: "s" random_seed: 1 solver_mode: CPU
"""

VERBS = {
    "train": "train --solver solver.prototxt",
    "test": "test --model train.prototxt --weights w.caffemodel --iterations 2",
    "time": "time --model train.prototxt --iterations 2",
    "summary": "summary train.prototxt",
    "classify": "classify i.png --model deploy.prototxt --weights w.caffemodel --short-side 4",
    "extract_features": "extract_features w.caffemodel train.prototxt fc,offset fc_db,o_db 2 lmdb",
    "draw": "draw train.prototxt net.svg",
    "export": "export --model deploy.prototxt --weights w.caffemodel --to npz --out w.npz",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a Python layer, nets that use it, weights and an image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "my_layers.py").write_text(LAYERS)
    (tmp_path / "train.prototxt").write_text(DATA + BODY + LOSS)
    (tmp_path / "deploy.prototxt").write_text(INPUT + BODY + PROB)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    cv2.imwrite("i.png", np.full((4, 4, 3), 9, np.uint8))
    assert main(["train", "--solver", "solver.prototxt", FLAG]) == 0
    (tmp_path / "s_iter_3.caffemodel").rename("w.caffemodel")
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_the_flag_or_the_variable_runs_them(
    verb: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = VERBS[verb].split()
    before = dict(sys.modules), list(sys.path), list(sys.meta_path)
    assert main([*words, FLAG, "--force"] if verb == "train" else [*words, FLAG]) == 0
    for path in folder.glob("*_db"):
        path.rename(f"{path}.first")
    monkeypatch.setenv(VARIABLE, "1")
    assert main(words) == 0, capsys.readouterr().err
    assert "caffe" not in sys.modules and "my_layers" not in sys.modules
    assert (sys.path, sys.meta_path) == (before[1], before[2])
    monkeypatch.delenv(VARIABLE)
    capsys.readouterr()
    if verb == "draw":
        return  # reads the prototxt only
    for path in folder.glob("*_db"):
        path.rename(f"{path}.second")
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert "runs the Python code my_layers.Offset, which is off; expected permission" in shown
    assert f"use {FLAG} or set {VARIABLE}=1" in shown


def test_their_weights_are_learnt_and_used(folder: Path) -> None:
    assert main(VERBS["export"].split() + [FLAG]) == 0
    weights = np.load("w.npz")
    offset = next(weights[key] for key in weights.files if "offset" in key)
    assert offset.shape == (3,) and (offset != 2).all()


def test_replicas_run_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--solver", "solver.prototxt", "--replicas", "2", "--force"]
    status = main([*words, FLAG])
    assert status in (0, 2) and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("Failing", "my_layers.Failing.forward raised KeyError: 'nothing' ("),
        ("Leaving", "my_layers.Leaving.setup raised SystemExit: bye ("),
        ("Empty", "my_layers.Empty.setup raised AttributeError: 'Empty' object has no attribute"),
        ("Absent", "my_layers.Absent cannot be imported: module 'my_layers' has no attribute"),
    ],
)
def test_errors_in_their_code_are_one_line(
    layer: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "train.prototxt").read_text().replace('"Offset"', f'"{layer}"')
    (folder / "bad.prototxt").write_text(text)
    capsys.readouterr()
    assert main(["time", "--model", "bad.prototxt", FLAG]) == 2
    shown = capsys.readouterr().err
    assert words in shown and "Traceback" not in shown
    if layer == "Failing":
        assert f"({folder}/my_layers.py, line 22)" in shown


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print 1", "raised SyntaxError: Missing parentheses in call to 'print'."),
        ("import no_such_thing", "cannot be imported: No module named 'no_such_thing'"),
        ("1 / 0", "raised ZeroDivisionError: division by zero ("),
        (None, "cannot be imported: No module named 'other_layers'; expected the module in a"),
    ],
)
def test_modules_that_do_not_import(
    code: str | None, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "train.prototxt").read_text().replace("my_layers", "other_layers")
    (folder / "bad.prototxt").write_text(text)
    if code is not None:
        (folder / "other_layers.py").write_text(code + "\n")
    capsys.readouterr()
    assert main(["summary", "bad.prototxt", FLAG]) == 2
    shown = capsys.readouterr().err
    assert words in shown and "Traceback" not in shown


def test_another_caffe_is_put_aside_and_comes_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {name: types.ModuleType(name) for name in ("caffe", "caffe.io")}
    for name, module in others.items():
        monkeypatch.setitem(sys.modules, name, module)
    (folder / "caffe.py").write_text("raise ImportError('the original')")
    monkeypatch.syspath_prepend(folder)
    assert main(VERBS["time"].split() + [FLAG]) == 0
    assert {name: sys.modules[name] for name in others} == others


@pytest.mark.parametrize(
    ("value", "allowed"), [("1", True), ("TRUE", True), ("0", False), ("", False)]
)
def test_the_variable_is_a_boolean(
    value: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert RunContext().allow_python_layers is allowed
    monkeypatch.setenv(VARIABLE, "perhaps")
    with pytest.raises(UnsupportedError, match=f"{VARIABLE}: not a Boolean; expected 1 or 0, got"):
        RunContext()


def test_a_wrong_variable_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "perhaps")
    assert main(["summary", "train.prototxt"]) == 2
    assert "not a Boolean; expected 1 or 0, got 'perhaps'" in capsys.readouterr().err
