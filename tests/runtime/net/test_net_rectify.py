"""A convolution does the ReLU that follows it, unless somebody looks at what is between."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from prototxt_gen import proto
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from runtime.solvers.solver import Solver
from tests.runtime.small_nets import conv, input_layer, layer, net_param

FILLED = 'weight_filler { type: "xavier" }'
LAYERS = (
    input_layer(2, 3, 8, 8)
    + conv("c1", "data", 8, 3, FILLED)
    + layer("ReLU", "r1", "c1", top="c1")
    + conv("c2", "c1", 4, 3, FILLED)
)


@pytest.fixture
def net() -> Iterator[Net]:
    with made(LAYERS) as net:
        yield net


def made(layers: str) -> Net:
    context = RunContext(rng=CaffeRandom(3))
    net = Net(net_param(layers), proto.TEST, create_backend("cpu"), context)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    net.blobs["data"].data.mutable_host()[...] = images
    return net


def values(net: Net, name: str) -> np.ndarray:
    return np.array(net.blobs[name].data.host())


def calls_of(net: Net, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where forward passes leave the names of layers that compute."""
    calls: list[str] = []
    for each in net.layers:
        run, name = each.forward, str(each.param.name)
        monkeypatch.setattr(
            each, "forward", lambda b, t, run=run, name=name: (calls.append(name), run(b, t))[1]
        )
    return calls


def test_the_relu_is_done_in_passing(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    net.forward(end=1)
    net.forward(start=2)
    expected = values(net, "c1"), values(net, "c2")
    calls = calls_of(net, monkeypatch)
    net.forward()
    assert calls == ["data", "c1", "c2"]
    assert np.array_equal(values(net, "c1"), expected[0])
    assert np.array_equal(values(net, "c2"), expected[1])


def test_a_pass_that_ends_before_the_relu_shows_what_is_negative(net: Net) -> None:
    net.forward(end=1)
    assert (values(net, "c1") < 0).any()
    net.forward(start=2, end=2)
    assert (values(net, "c1") >= 0).all()


def test_hooks_see_what_is_between(net: Net) -> None:
    seen: list[bool] = []
    net.after_forward.append(lambda i: seen.append(bool((values(net, "c1") < 0).any())))
    net.forward()
    assert seen == [False, True, False, False]


@pytest.mark.parametrize(
    "relu",
    [
        layer("ReLU", "r1", "c1", top="apart"),
        layer("ReLU", "r1", "c1", "relu_param { negative_slope: 0.5 }", top="c1"),
    ],
    ids=["not in place", "leaky"],
)
def test_other_relus_run_themselves(relu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(input_layer(2, 3, 8, 8) + conv("c1", "data", 8, 3, FILLED) + relu) as net:
        calls = calls_of(net, monkeypatch)
        net.forward()
        assert calls == ["data", "c1", "r1"]


def test_a_relu_behind_another_layer_runs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deconvolution has no such way."""
    up = "convolution_param { num_output: 2 kernel_size: 3 }"
    layers = layer("Deconvolution", "up", "data", up) + layer("ReLU", "r", "up", top="up")
    with made(input_layer(2, 3, 8, 8) + layers) as net:
        calls = calls_of(net, monkeypatch)
        net.forward()
        assert calls == ["data", "up", "r"]


def test_a_solver_that_says_nothing_does_not_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines of debug_info are the only hooks that a solver puts on a net's forward pass."""
    sums = layer("Reduction", "sum", "c2", "loss_weight: 1")
    for debug in (False, True):
        param = proto.SolverParameter(base_lr=0.1, lr_policy="fixed", random_seed=1, display=1)
        param.debug_info = debug
        param.net_param.CopyFrom(net_param(LAYERS + sums))
        solver = Solver(param, create_backend("cpu"))
        calls = calls_of(solver.net, monkeypatch)
        solver.step(1)
        assert ("r1" in calls) == debug
        assert not solver.net.after_forward or debug
