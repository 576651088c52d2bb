"""The nets that a solver builds, and the fields that it rejects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.sidecar import Sidecar
from runtime.backend.registry import create_backend
from runtime.core.rng import CaffeRandom
from runtime.solvers.nets import test_net_sources as sources_of_tests
from runtime.solvers.nets import train_net_source
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver
from runtime.weights.net_weights import save
from tests.runtime.solvers.toy import CLASSIFIER, LEAST_SQUARES, make_solver, solver_param

STAGED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }
layer { name: "deep" type: "ReLU" bottom: "data" top: "deep" include { stage: "deep" } }
layer { name: "high" type: "ReLU" bottom: "data" top: "high" include { min_level: 2 } }
layer { name: "test" type: "ReLU" bottom: "data" top: "test" include { phase: TEST } }
"""


def _param(fields: str) -> Any:
    base = "base_lr: 1 lr_policy: 'fixed' snapshot_after_train: false random_seed: 1 "
    return text.parse(base + fields, proto.SolverParameter)


def _solver(fields: str, root: Path, **more: Any) -> Solver:
    return Solver(_param(fields), create_backend("cpu"), SolverOptions(root=root, **more))


def _names(fields: str, root: Path) -> tuple[list[str], list[list[str]]]:
    solver = _solver(fields, root)
    return (
        solver.net.layer_names,
        [net.layer_names for net in solver.test_nets],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "staged.prototxt").write_text(STAGED)
    plain = 'layer { name: "p" type: "Input" top: "p" input_param { shape { dim: 1 } } }'
    (tmp_path / "plain.prototxt").write_text(plain)
    return tmp_path


def test_states(folder: Path) -> None:
    train, (test,) = _names(
        "net: 'staged.prototxt' train_state { stage: 'deep' } test_iter: 1 test_interval: 1 "
        "test_state { level: 2 }",
        folder,
    )
    assert train == ["data", "deep"] or train[0] == "data"
    assert [name for name in train if "split" not in name] == ["data", "deep"]
    assert [name for name in test if "split" not in name] == ["data", "high", "test"]


def test_a_net_may_name_its_own_state(folder: Path) -> None:
    (folder / "own.prototxt").write_text("state { stage: 'deep' level: 1 }" + STAGED)
    param = _param("net: 'own.prototxt' train_state { level: 2 stage: 'x' }")
    state = train_net_source(param, folder).state
    assert (state.phase, state.level, list(state.stage)) == (proto.TRAIN, 2, ["deep", "x"])


def test_test_nets_in_caffes_order(folder: Path) -> None:
    param = _param(
        "net: 'plain.prototxt' test_net: 'staged.prototxt' test_net_param { name: 'embedded' } "
        "test_iter: 1 test_iter: 2 test_iter: 3 test_iter: 4 test_interval: 5"
    )
    sources = [source.source for source in sources_of_tests(param, folder)]
    assert sources == [
        "test_net_param",
        "test_net file: staged.prototxt",
        "net file: plain.prototxt",
        "net file: plain.prototxt",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "must specify a train net using one of these fields: net, net_param, train_net"),
        ("net: 'a' train_net: 'b'", "must not contain more than one .* got net, train_net"),
        ("net: 'no.prototxt'", "no.prototxt: cannot be read"),
        ("train_net: 'plain.prototxt' test_iter: 1", "test_iter must be specified for each test"),
        ("net: 'plain.prototxt' test_net: 'a' test_net: 'b' test_iter: 1", "at least 2, got 1"),
        ("net: 'plain.prototxt' test_iter: 1", "test_interval must be positive"),
        (
            "net: 'plain.prototxt' test_iter: 0 test_interval: 1",
            "test_iter: out of range; expected at least 1, got 0",
        ),
        (
            "net: 'plain.prototxt' test_iter: 1 test_interval: 1 test_state {} test_state {}",
            "test_state must be unspecified or specified once per test net",
        ),
        ("net: 'plain.prototxt' average_loss: 0", "average_loss: out of range; expected at"),
        ("net: 'plain.prototxt' iter_size: 0", "iter_size: out of range; expected at least"),
    ],
)
def test_contradictions_are_refused(fields: str, message: str, folder: Path) -> None:
    with pytest.raises(ProtoError, match=message):
        _solver(fields, folder)


def test_a_test_net_tests_the_weights_being_learnt() -> None:
    solver = make_solver("test_iter: 1 test_interval: 1", CLASSIFIER)
    solver.step(3)
    train, test = solver.net.layer_by_name("ip1"), solver.test_nets[0].layer_by_name("ip1")
    assert train is not None and test is not None
    for mine, theirs in zip(train.blobs, test.blobs):
        assert mine.data.storage is theirs.data.storage
    assert solver.test_nets[0].context.pass_number == 3


def test_test_nets_that_do_not_fit_are_refused() -> None:
    param = solver_param("test_iter: 1 test_interval: 1", CLASSIFIER)
    other = text.parse(
        CLASSIFIER.format(batch=4).replace("num_output: 8", "num_output: 9"), proto.NetParameter
    )
    param.test_net_param.add().CopyFrom(other)
    with pytest.raises(ShapeError, match="Cannot share weights with the train net; shape mismatch"):
        Solver(param, create_backend("cpu"))
    param.test_net_param[0].layer[1].inner_product_param.num_output = 8
    param.test_net_param[0].layer[1].inner_product_param.bias_term = False
    with pytest.raises(ShapeError, match="Incompatible number of blobs; expected 2"):
        Solver(param, create_backend("cpu"))


def test_the_solvers_weights_are_read_in_order(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        save(make_solver(f"random_seed: {seed}").net, tmp_path / f"{name}.caffemodel")
    names = [f"{tmp_path}/{name}.caffemodel" for name in "ab"]
    wanted = make_solver("random_seed: 2").net.params.learnable[0].data.host()
    for fields in (
        f"weights: '{names[0]}, {names[1]}'",
        f"weights: '{names[0]}' weights: '{names[1]}'",
    ):
        solver = make_solver(f"random_seed: 3 {fields}")
        np.testing.assert_array_equal(solver.net.params.learnable[0].data.host(), wanted)


def test_the_sidecar_names_the_layers_of_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    source = make_solver("random_seed: 1", CLASSIFIER)
    save(source.net, path)
    options = SolverOptions(sidecar=Sidecar(weights_layers=("ip2",)))
    solver = make_solver(f"random_seed: 3 weights: '{path}'", CLASSIFIER, options=options)
    for name, equal in (("ip1", False), ("ip2", True)):
        pair = [net.layer_by_name(name) for net in (solver.net, source.net)]
        values = [layer.blobs[0].data.host() for layer in pair if layer is not None]
        assert np.array_equal(*values) is equal


def test_layers_of_the_test_net_alone_are_loaded_too(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    save(make_solver("random_seed: 1", CLASSIFIER).net, path)
    param = solver_param(f"test_iter: 1 test_interval: 1 weights: '{path}'", LEAST_SQUARES)
    param.test_net_param.add().CopyFrom(text.parse(CLASSIFIER.format(batch=4), proto.NetParameter))
    solver = Solver(param, create_backend("cpu"))
    source = make_solver("random_seed: 1", CLASSIFIER).net.layer_by_name("ip2")
    loaded = solver.test_nets[0].layer_by_name("ip2")
    assert source is not None and loaded is not None
    np.testing.assert_array_equal(loaded.blobs[0].data.host(), source.blobs[0].data.host())


TESTED = "test_iter: 1 test_interval: 1 test_net: 'test.prototxt' train_net: 'train.prototxt'"
OWN = """
layer {{ name: "own" type: "InnerProduct" bottom: "data" top: "own"
  inner_product_param {{ num_output: 2 weight_filler {{ type: "{}" }} }} }}
"""


@pytest.mark.parametrize("kind", ["", "constant", "xavier"])
def test_weights_that_will_be_shared_are_drawn_late(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are drawn after them must get the same random numbers as in Caffe."""
    drawn: list[int] = []
    uniform = CaffeRandom.uniform

    def count(rng: CaffeRandom, *arguments: Any) -> Any:
        drawn.append(arguments[0])
        return uniform(rng, *arguments)

    monkeypatch.setattr(CaffeRandom, "uniform", count)
    extra = OWN.format(kind) if kind else ""
    net = CLASSIFIER.format(batch=2)
    (tmp_path / "train.prototxt").write_text(net)
    (tmp_path / "test.prototxt").write_text(net + extra)
    solver = _solver(TESTED, tmp_path, rng=(stream := CaffeRandom(3)))
    # The layer that only the test net has draws after the shared layers.
    assert drawn == ([48, 24, 12, 48, 24] if kind == "xavier" else [48, 24])
    monkeypatch.undo()
    alone = CaffeRandom(3)
    for _ in range(2):
        alone.uniform(8 * 6, -1, 1)
        alone.uniform(3 * 8, -1, 1)
    if kind == "xavier":
        limit = float(np.sqrt(np.float32(3) / np.float32(6)))
        own = solver.test_nets[0].layer_by_name("own")
        assert own is not None
        expected = alone.uniform(12, -limit, limit).reshape(2, 6)
        np.testing.assert_array_equal(own.blobs[0].data.host(), expected)
    assert stream.uniform(1, 0, 1) == alone.uniform(1, 0, 1)
