"""Weights that files replace are not drawn, and the random stream continues as if they had been."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime.pycaffe as caffe
from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom, RawStream
from runtime.inference.model import load
from runtime.logs.glog import close_logging
from runtime.net import Net
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver
from runtime.weights.net_file import replaced_layers
from runtime.weights.net_weights import copy_trained_layers, save
from tests.runtime.small_net import weights

NET = """
name: "four"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 6, 6] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" }
    bias_filler { type: "uniform" min: -1 } } }
layer { name: "slope" type: "PReLU" bottom: "conv" top: "slope"
  prelu_param { filler { type: "gaussian" sparse: 2 } } }
layer { name: "scale" type: "Scale" bottom: "slope" top: "scale"
  scale_param { bias_term: true filler { type: "positive_unitball" }
    bias_filler { type: "gaussian" mean: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "scale" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" }
    bias_filler { type: "constant" value: 3 } } }
"""
LAYERS = ("conv", "slope", "scale", "fc")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    write_weights(LAYERS)
    yield tmp_path
    close_logging()


def build(param_text: str = NET, context: RunContext | None = None) -> Net:
    param = text.parse(param_text, proto.NetParameter)
    return Net(param, proto.TEST, create_backend("cpu"), context or RunContext())


def write_weights(layers: tuple[str, ...], name: str = "w.caffemodel", seed: int = 99) -> None:
    """A file of these layers' weights."""
    with build(context=RunContext(rng=CaffeRandom(seed))) as net:
        for layer in net.layers:
            if layer.param.name not in layers and layer.blobs:
                layer.param.name = f"other {layer.param.name}"
        save(net, name)


class Counted:
    """How many numbers were taken from all random streams."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        skip = RawStream.skip

        def counted(stream: RawStream, count: int) -> None:
            self.count += count
            skip(stream, count)

        monkeypatch.setattr(RawStream, "skip", counted)


@pytest.fixture
def drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.mark.parametrize("kept", [(), ("conv",), ("slope", "fc"), ("fc",), LAYERS])
@pytest.mark.parametrize("ending", ["caffemodel", "h5", "npz"])
def test_all_numbers_are_as_with_every_filler_drawn(kept: tuple[str, ...], ending: str) -> None:
    """In layers that the file lacks, and after the net."""
    file = f"some.{ending}"
    write_weights(tuple(set(LAYERS) - set(kept)), file)
    straight, late = RunContext(rng=CaffeRandom(5)), RunContext(rng=CaffeRandom(5))
    late.replaced = replaced_layers(text.parse(NET, proto.NetParameter), [file])
    assert set(LAYERS) & set(late.replaced) == set(LAYERS) - set(kept)
    with build(context=straight) as expected, build(context=late) as net:
        for each in (expected, net):
            copy_trained_layers(each, file)
        for name, blobs in weights(expected).items():
            for mine, theirs in zip(weights(net)[name], blobs, strict=True):
                np.testing.assert_array_equal(mine, theirs)
    assert late.rng.raw() == straight.rng.raw()
    np.testing.assert_array_equal(late.rng.gaussian(9, 0, 1), straight.rng.gaussian(9, 0, 1))


def test_nothing_is_drawn_where_nothing_draws_later(drawn: Counted) -> None:
    for make in (
        lambda: caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel").core,
        lambda: caffe.Net("net.prototxt", "w.caffemodel", caffe.TEST).core,
        lambda: load("net.prototxt", "w.caffemodel"),
    ):
        with make() as net:
            assert weights(net)["fc"][1].tolist() == [3] * 5
            net.forward()
    assert drawn.count == 0


def test_nets_made_later_begin_with_the_same_weights(drawn: Counted) -> None:
    found = []
    for late in (False, True):
        caffe.set_random_seed(7)
        if late:
            caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel")
            assert drawn.count == 0
        else:
            caffe.Net("net.prototxt", caffe.TEST)
        found.append(weights(caffe.Net("net.prototxt", caffe.TEST).core))
        drawn.count = 0
    for name in LAYERS:
        for first, second in zip(found[0][name], found[1][name], strict=True):
            np.testing.assert_array_equal(first, second)
    caffe.set_random_seed(7)
    caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel")
    caffe.set_random_seed(7)
    drawn.count = 0
    caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel")
    assert drawn.count == 0, "a new seed makes earlier draws superfluous"


def test_numbers_of_passes_come_after_the_fillers() -> None:
    """DummyData and Caffe's dropout draw from the stream in every pass."""
    noise = (
        'layer { name: "noise" type: "DummyData" top: "noise" dummy_data_param { '
        'shape { dim: 4 } data_filler { type: "gaussian" } } }'
    )
    Path("noisy.prototxt").write_text(NET + noise)
    found = []
    for arguments in ({}, {"weights": "w.caffemodel"}):
        caffe.set_random_seed(3)
        net = caffe.Net("noisy.prototxt", caffe.TEST, **arguments)
        found.append([net.forward()["noise"].copy() for _ in range(2)])
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize(
    "words",
    [
        ["test", "--iterations", "1"],
        ["time", "--iterations", "1", "--forward_only", "--phase", "TEST"],
        ["export", "--to", "npz", "--out", "out.npz"],
    ],
    ids=lambda words: words[0],
)
def test_verbs_with_weights_draw_nothing(words: list[str], drawn: Counted) -> None:
    assert main([words[0], "--model", "net.prototxt", "--weights", "w.caffemodel", *words[1:]]) == 0
    assert drawn.count == 0


def test_of_two_layers_of_one_name_one_keeps_its_filler() -> None:
    twin = (
        'layer { name: "fc" type: "InnerProduct" bottom: "scale" top: "twin" '
        'inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }'
    )
    param = text.parse(NET + twin, proto.NetParameter)
    assert replaced_layers(param, ["w.caffemodel"]) == {"conv", "slope", "scale"}
    assert replaced_layers(param, ["w.caffemodel"], only=["conv", "fc"]) == {"conv"}


def test_shared_weights_keep_their_owners_values(drawn: Counted) -> None:
    """A file of HDF5 has the owner's datasets alone."""
    shared = NET.replace(
        'layer { name: "fc"',
        'layer { name: "fc0" type: "InnerProduct" bottom: "scale" top: "fc0" '
        'param { name: "w" } param { name: "b" } inner_product_param { num_output: 5 '
        'weight_filler { type: "xavier" } } } '
        'layer { name: "fc" param { name: "w" } param { name: "b" }',
    )
    with build(shared, RunContext(rng=CaffeRandom(1))) as net:
        save(net, "shared.h5")
        expected = weights(net)
    drawn.count = 0
    Path("shared.prototxt").write_text(shared)
    found = weights(caffe.Net("shared.prototxt", caffe.TEST, weights="shared.h5").core)
    for name in ("fc0", "fc"):
        for mine, theirs in zip(found[name], expected[name], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def solver_with(fields: str, **options: Any) -> Solver:
    net = NET + (
        'layer { name: "target" type: "Input" top: "target" input_param { shape { dim: [2, 5] } } }'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "target" top: "loss" }'
    )
    param = text.parse(
        f"base_lr: 0.1 lr_policy: 'fixed' random_seed: 4 snapshot_after_train: false {fields}",
        proto.SolverParameter,
    )
    param.net_param.CopyFrom(text.parse(net, proto.NetParameter))
    return Solver(param, create_backend("cpu"), SolverOptions(**options))


def test_a_solvers_weights_replace_what_is_not_drawn(drawn: Counted) -> None:
    tests = "test_iter: 1 test_interval: 1 test_initialization: false"
    solver = solver_with(f"weights: 'w.caffemodel' {tests}", rng=(late := CaffeRandom(4)))
    assert drawn.count == 0
    straight = solver_with(tests, rng=(stream := CaffeRandom(4)))
    copy_trained_layers(straight.net, "w.caffemodel")
    for name, blobs in weights(straight.net).items():
        for mine, theirs in zip(weights(solver.net)[name], blobs, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert late.raw() == stream.raw()


def test_a_snapshots_weights_replace_what_is_not_drawn(drawn: Counted) -> None:
    first = solver_with("snapshot_prefix: 's' snapshot: 1")
    first.step(1)
    drawn.count = 0
    resumed = solver_with("snapshot_prefix: 's'", overwritten_by=Path("s_iter_1.caffemodel"))
    resumed.restore("s_iter_1.solverstate")
    assert drawn.count == 0
    for name, blobs in weights(first.net).items():
        for mine, theirs in zip(weights(resumed.net)[name], blobs, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    Path("s_iter_1.caffemodel").write_bytes(b"torn")
    solver_with("", overwritten_by=Path("s_iter_1.caffemodel"))
    assert drawn.count > 0, "what reports a damaged snapshot is the resuming"


def test_postponed_draws_are_kept_once_each() -> None:
    stream = CaffeRandom(2)
    order: list[str] = []

    def draw_one(rng: CaffeRandom) -> None:
        order.append("one")
        rng.uniform(3, 0, 1)

    def draw_other(rng: CaffeRandom) -> None:
        order.append("other")
        rng.gaussian(2, 0, 1)

    for _ in range(2):
        stream.postpone(draw_one)
        stream.postpone(draw_other)
    assert order == []
    alone = CaffeRandom(2)
    for _ in range(2):
        alone.uniform(3, 0, 1)
        alone.gaussian(2, 0, 1)
    assert stream.bernoulli(5, 0.5).tolist() == alone.bernoulli(5, 0.5).tolist()
    assert order == ["one", "other"] * 2
    assert stream.raw() == alone.raw()
