"""What CONTRIBUTING.md counts: things are added to a copy of the source, in so many files."""

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
COPIED += ("tests/oracle", "tests/architecture", "tests/prototxt_gen", "pyproject.toml")

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
    only_ops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Top as bottom."""
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Cube and scale."""
        scale = self.param.cube_param.scale
        if self.backend.kernels is None:
            top[0].data.mutable_host()[...] = scale * bottom[0].data.host() ** 3
            return
        args = (bottom[0].data.dev(), top[0].data.mutable_dev(), bottom[0].count(), scale)
        self.backend.kernels.elementwise("cube", "cube_forward", bottom[0].count(), args)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """3 * scale * x^2."""
        if not propagate_down[0]:
            return
        scale = self.param.cube_param.scale
        if self.backend.kernels is None:
            x, dy = bottom[0].data.host(), top[0].diff.host()
            bottom[0].diff.mutable_host()[...] = 3 * scale * x**2 * dy
            return
        arrays = bottom[0].data.dev(), top[0].diff.dev(), bottom[0].diff.mutable_dev()
        args = (*arrays, bottom[0].count(), scale)
        self.backend.kernels.elementwise("cube", "cube_backward", bottom[0].count(), args)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        cube = step.op("Pow", step.inputs[0], step.scalar(3, "power"))
        return [step.affine(cube, self.param.cube_param.scale, 0.0)]
'''
KERNEL = """// cube.cu -- scale * x^3 and its gradient
// launch: block 256, grid ceil(count / 1024)
#include "quads.cuh"

constexpr int BLOCK = 256;

// x (count) in; y (count) out.
extern "C" __global__ void __launch_bounds__(BLOCK)
    cube_forward(const float* x, float* y, int64_t count, float scale) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD];
    load_quad(x, first, count, value);
    for (int i = 0; i < QUAD; ++i) {
        value[i] = scale * value[i] * value[i] * value[i];
    }
    store_quad(y, first, count, value);
}

// x, dy (count) in; dx (count) out.
extern "C" __global__ void __launch_bounds__(BLOCK)
    cube_backward(const float* x, const float* dy, float* dx, int64_t count, float scale) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD], gradient[QUAD];
    load_quad(x, first, count, value);
    load_quad(dy, first, count, gradient);
    for (int i = 0; i < QUAD; ++i) {
        gradient[i] *= 3 * scale * value[i] * value[i];
    }
    store_quad(dx, first, count, gradient);
}
"""
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


ON_THE_DEVICE = """
import numpy as np
from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.net import Net

NET = '''force_backward: true
layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 171 } } }
layer { name: "cube" type: "Cube" bottom: "x" top: "y" cube_param { scale: 0.5 } }'''
x, dy = np.random.default_rng(0).uniform(-1, 1, (2, 2, 3, 171)).astype(np.float32)
results = []
for device in ("cpu", "emu"):
    with Net(text.parse(NET, proto.NetParameter), proto.TRAIN, create_backend(device)) as net:
        net.blobs["x"].data.mutable_host()[...] = x
        net.forward()
        net.blobs["y"].diff.mutable_host()[...] = dy
        launches = net.backend.launches
        net.backward()
        assert launches is None or net.backend.launches > launches
        results.append((net.blobs["y"].data.host().copy(), net.blobs["x"].diff.host().copy()))
for cpu, emulator in zip(*results):
    np.testing.assert_allclose(cpu, emulator, rtol=1e-6)
np.testing.assert_allclose(results[1][1], 1.5 * x**2 * dy, rtol=1e-5)
"""

VERB = '''"""Count the layers of a net."""

from __future__ import annotations

import argparse

from prototxt_gen.text import read_net

NAME = "count_layers"
SUMMARY = "print the number of layers of a net"
EXAMPLE = "verydeep count_layers deploy.prototxt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="PROTOTXT", help="the net")


def run(args: argparse.Namespace) -> int:
    print(len(read_net(args.model).layer))
    return 0
'''


FAMILY = '''"""A small ResNet: stages of two basic blocks."""

from __future__ import annotations

from prototxt_gen.net_layers import add_average, add_convolution, add_layer, learnt
from prototxt_gen.proto import Message
from prototxt_gen.spec import Initialisation, NetSpecification

NET = "ResNet-10"


def scores(net: Message, spec: NetSpecification, init: Initialisation | None) -> str:
    """Add the first convolution, the blocks, the average and the classifier."""

    def convolution(name: str, bottom: str, width: int, kernel: int, stride: int) -> str:
        layer = add_convolution(net, name, bottom, width, kernel, kernel // 2, stride)
        learnt(layer, layer.convolution_param, init)
        add_layer(net, "BatchNorm", f"{name}_bn", name, name)
        add_layer(net, "Scale", f"{name}_scale", name, name).scale_param.bias_term = True
        return name

    def rectified(name: str) -> str:
        add_layer(net, "ReLU", f"{name}_relu", name, name)
        return name

    top = rectified(convolution("conv1", "data", spec.scaled(64), 7, 2))
    for stage, width in enumerate((64, 128, 256, 512), start=2):
        wide, stride = spec.scaled(width), 1 if stage == 2 else 2
        shortcut = convolution(f"res{stage}_branch1", top, wide, 1, stride)
        inner = rectified(convolution(f"res{stage}_branch2a", top, wide, 3, stride))
        inner = convolution(f"res{stage}_branch2b", inner, wide, 3, 1)
        add_layer(net, "Eltwise", f"res{stage}", shortcut, f"res{stage}").bottom.append(inner)
        top = rectified(f"res{stage}")
    add_average(net, "pool5", top)
    classifier = add_layer(net, "InnerProduct", "fc", "pool5", "fc")
    classifier.inner_product_param.num_output = spec.classes
    learnt(classifier, classifier.inner_product_param, init)
    return "fc"
'''
FAMILY_TEST = '''"""The shape of the residual net."""

from __future__ import annotations

from prototxt_gen import heads
from prototxt_gen.spec import builtin_spec


def test_every_stage_has_a_shortcut() -> None:
    net = heads.deploy(builtin_spec("ResNet-10"))
    sums = [layer for layer in net.layer if layer.type == "Eltwise"]
    assert [layer.bottom[0] for layer in sums] == [f"res{i}_branch1" for i in (2, 3, 4, 5)]
'''


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the source without compiled extensions."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def insert(path: Path, before: str, lines: str) -> None:
    """Insert lines before the first occurrence of a text."""
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, lines + before, 1), encoding="utf-8")


def run(folder: Path, *command: str) -> str:
    """Run Python on the copy; returns its output."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def changed_files(folder: Path) -> list[str]:
    """The files of a copy that differ from the original or are new."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in paths if "cache" not in str(path))
    return sorted(
        name
        for name in names
        if not (ROOT / name).is_file() or (ROOT / name).read_bytes() != (folder / name).read_bytes()
    )


def test_a_layer_with_a_kernel_takes_four_files(copy: Path) -> None:
    """Definition, gradient and ONNX in its own file; schema, kernel, row of the conformance table.

    A layer that computes on the host has no kernel, and takes three.
    """
    schema = copy / "prototxt_gen/proto/caffe.proto"
    insert(schema, "  optional DataParameter data_param", FIELD)
    insert(schema, "message DataParameter", MESSAGE)
    (copy / "runtime/layers/cube.py").write_text(LAYER, encoding="utf-8")
    (copy / "cuda_kernels/cube.cu").write_text(KERNEL, encoding="utf-8")
    rows = copy / "tests/conformance/layer_cases_pointwise.py"
    insert(rows, "    Case('type: \"BNLL\"'", ROW)
    assert changed_files(copy) == [
        "cuda_kernels/cube.cu",
        "prototxt_gen/proto/caffe.proto",
        "runtime/layers/cube.py",
        "tests/conformance/layer_cases_pointwise.py",
    ]
    run(copy, "-c", USES)
    run(copy, "-c", ON_THE_DEVICE)
    run(copy, "-m", "pytest", "-q", "tests/conformance/test_layers.py", "-k", "Cube or every")


def test_a_verb_takes_one_file(copy: Path) -> None:
    """The command line finds it, lists it and shows its help."""
    (copy / "runtime/cli/count_layers.py").write_text(VERB, encoding="utf-8")
    (copy / "net.prototxt").write_text('layer { name: "x" type: "Input" top: "x" }')
    assert changed_files(copy) == ["net.prototxt", "runtime/cli/count_layers.py"]
    assert run(copy, "-m", "runtime", "count_layers", "net.prototxt") == "1\n"
    assert "print the number of layers of a net" in run(copy, "-m", "runtime", "--help")
    assert "verydeep count_layers deploy.prototxt" in run(
        copy, "-m", "runtime", "count_layers", "--help"
    )
    run(copy, "-m", "pytest", "-q", "tests/architecture/test_cli.py", "-k", "count_layers or every")


def test_a_family_of_nets_takes_two_files(copy: Path) -> None:
    """A residual net and its test; the command line and the tests of all families find it."""
    (copy / "prototxt_gen/families/resnet.py").write_text(FAMILY, encoding="utf-8")
    (copy / "tests/prototxt_gen/test_resnet.py").write_text(FAMILY_TEST, encoding="utf-8")
    assert changed_files(copy) == [
        "prototxt_gen/families/resnet.py",
        "tests/prototxt_gen/test_resnet.py",
    ]
    tests = ("tests/prototxt_gen/test_resnet.py", "tests/prototxt_gen/test_families.py")
    run(copy, "-m", "pytest", "-q", *tests)
    run(copy, "-m", "runtime", "prototxt", "--net", "ResNet-10", "--out", "nets")
    shown = run(copy, "-m", "runtime", "summary", "--net", "ResNet-10")
    assert "res5_branch2b" in shown
    assert "res5_branch2b" in run(copy, "-m", "runtime", "summary", "nets/deploy.prototxt")
