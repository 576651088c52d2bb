"""A new layer type is added in a temporary copy: which files it takes, and that all of it works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("prototxt_gen", "data_prep", "cuda_kernels", "runtime", "tests/conformance")
COPIED += ("tests/oracle",)

LAYER = '''"""Cube: y = scale * x^3."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("Cube")
class CubeLayer(Layer):
    """y = scale * x^3."""

    applies_densely = True
    places = Places.SAME

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Top as bottom."""
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Cube and scale."""
        x = bottom[0].data.host()
        top[0].data.mutable_host()[...] = self.param.cube_param.scale * x**3

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """3 * scale * x^2."""
        if propagate_down[0]:
            x, dy = bottom[0].data.host(), top[0].diff.host()
            bottom[0].diff.mutable_host()[...] = 3 * self.param.cube_param.scale * x**2 * dy

    def to_onnx(self, step: OnnxStep) -> list[str]:
        cube = step.op("Pow", step.inputs[0], step.scalar(3, "power"))
        return [step.affine(cube, self.param.cube_param.scale, 0.0)]
'''
FIELD = "  optional CubeParameter cube_param = 900;\n"
MESSAGE = "message CubeParameter {\n  optional float scale = 1;\n}\n"
ROW = """    Case('type: "Cube" cube_param { scale: 2 }', [NCHW], lambda x: 2 * x**3),
"""
USES = """
import importlib.util
import numpy as np
from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.evaluate.surgery import dense_form
from runtime.export.onnx_model import compare, to_onnx
from runtime.net import Net
from runtime.pycaffe import layers as L
from runtime.pycaffe.coord_map import PASS_THROUGH_LAYERS, coord_map

NET = '''name: "n"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 5 dim: 5 } } }
layer { name: "cube" type: "Cube" bottom: "data" top: "cube" cube_param { scale: 0.5 } }
layer { name: "fc" type: "InnerProduct" bottom: "cube" top: "fc" inner_product_param {
  num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }'''
param = text.parse(NET, proto.NetParameter)
assert "Cube" in PASS_THROUGH_LAYERS
assert coord_map(L.Cube(L.Input(), scale=2).fn) == (None, 1, 0)
dense = dense_form(param, create_backend("cpu")).param
assert [layer.type for layer in dense.layer] == ["Input", "Cube", "Convolution"]
with Net(param, proto.TEST, create_backend("cpu"), RunContext(rng=CaffeRandom(1))) as net:
    if importlib.util.find_spec("onnx"):
        differences = compare(net, *to_onnx(net)) or {}
        assert max(differences.values(), default=0) < 1e-5, differences
"""


def insert(path: Path, before: str, lines: str) -> None:
    """Write lines in front of the first place of a text."""
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, lines + before, 1), encoding="utf-8")


def run(folder: Path, *command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_a_layer_takes_three_files(tmp_path: Path) -> None:
    """Its own, the schema and its row of the conformance table, with ONNX and gradient."""
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    schema = tmp_path / "prototxt_gen/proto/caffe.proto"
    insert(schema, "  optional DataParameter data_param", FIELD)
    insert(schema, "message DataParameter", MESSAGE)
    (tmp_path / "runtime/layers/cube.py").write_text(LAYER, encoding="utf-8")
    rows = tmp_path / "tests/conformance/layer_cases_pointwise.py"
    insert(rows, "    Case('type: \"BNLL\"'", ROW)
    run(tmp_path, "-c", USES)
    run(tmp_path, "-m", "pytest", "-q", "tests/conformance/test_layers.py", "-k", "Cube or every")
