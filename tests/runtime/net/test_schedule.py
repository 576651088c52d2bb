"""Schedules: which layers run in a pass, which ReLUs are fused, and who runs the steps."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import TrainingError
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.core.sharing import Sharing
from runtime.net import Net
from runtime.net.schedule import Direction, PassRange, run, schedule
from runtime.solvers.solver import Solver
from tests.runtime.small_nets import conv, input_layer, layer, net_param

FILLED = 'weight_filler { type: "xavier" }'
RELU = layer("ReLU", "r1", "c1", top="c1")
INPUT = input_layer(2, 3, 8, 8)
LAYERS = INPUT + conv("c1", "data", 8, 3, FILLED) + RELU + conv("c2", "c1", 4, 3, FILLED)
POOL = layer("Pooling", "p1", "c1", "pooling_param { kernel_size: 2 stride: 2 }")


def total(bottom: str) -> str:
    """A loss, the sum of a blob."""
    return layer("Reduction", "sum", bottom, "loss_weight: 1")


POOLED = INPUT + conv("c1", "data", 8, 3, FILLED) + RELU + POOL + total("p1")

Pairs = list[tuple[int, ...]]


@pytest.fixture
def net() -> Iterator[Net]:
    with made(LAYERS) as net:
        yield net


def made(layers: str, phase: int = proto.TEST, **context: Any) -> Net:
    run_context = RunContext(rng=CaffeRandom(3), **context)
    net = Net(net_param(layers), phase, create_backend("cpu"), run_context)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    net.blobs["data"].data.mutable_host()[...] = images
    return net


def values(net: Net, name: str) -> np.ndarray:
    return np.array(net.blobs[name].data.host())


def forward(net: Net, first: int = 0, last: int | None = None) -> Pairs:
    end = len(net.layers) - 1 if last is None else last
    return [step.layers for step in net.schedule(PassRange(Direction.FORWARD, first, end))]


def backward(net: Net, first: int | None = None, last: int = 0, every: bool = False) -> Pairs:
    start = len(net.layers) - 1 if first is None else first
    span = PassRange(Direction.BACKWARD, start, last)
    return [step.layers for step in net.schedule(span, every)]


def test_a_relu_is_part_of_the_step_before_it(net: Net) -> None:
    net.forward(end=1)
    net.forward(start=2)
    expected = values(net, "c1"), values(net, "c2")
    assert forward(net) == [(0,), (1, 2), (3,)]
    net.forward()
    assert np.array_equal(values(net, "c1"), expected[0])
    assert np.array_equal(values(net, "c2"), expected[1])


def test_a_pass_that_ends_before_the_relu_leaves_negative_values(net: Net) -> None:
    net.forward(end=1)
    assert (values(net, "c1") < 0).any()
    assert forward(net, 0, 1) == [(0,), (1,)]
    net.forward(start=2, end=2)
    assert (values(net, "c1") >= 0).all()
    assert forward(net, 2, 2) == [(2,)]


def test_hooks_see_the_values_between_layers(net: Net) -> None:
    seen: list[bool] = []
    net.forward()
    net.after_forward.append(lambda i: seen.append(bool((values(net, "c1") < 0).any())))
    assert forward(net) == [(0,), (1,), (2,), (3,)]
    net.forward()
    assert seen == [False, True, False, False]
    net.after_forward.clear()
    net.forward()
    assert forward(net) == [(0,), (1, 2), (3,)]


def test_a_meter_does_not_prevent_fusion(net: Net) -> None:
    negative: list[bool] = []
    net.forward(after_layer=lambda i: negative.append(bool((values(net, "c1") < 0).any())))
    assert negative == [False] * 4


@pytest.mark.parametrize(
    "relu",
    [
        layer("ReLU", "r1", "c1", top="apart"),
        layer("ReLU", "r1", "c1", "relu_param { negative_slope: 0.5 }", top="c1"),
        layer("Sigmoid", "r1", "c1", top="c1"),
    ],
    ids=["not in place", "leaky", "no ReLU"],
)
def test_other_layers_have_steps_of_their_own(relu: str) -> None:
    with made(INPUT + conv("c1", "data", 8, 3, FILLED) + relu) as net:
        assert forward(net) == [(0,), (1,), (2,)]


def test_a_relu_after_a_layer_that_cannot_rectify_has_a_step() -> None:
    up = "convolution_param { num_output: 2 kernel_size: 3 }"
    layers = layer("Deconvolution", "up", "data", up) + layer("ReLU", "r", "up", top="up")
    with made(INPUT + layers) as net:
        assert forward(net) == [(0,), (1,), (2,)]


def test_only_debug_info_makes_the_passes_of_a_solver_observed() -> None:
    for debug in (False, True):
        param = proto.SolverParameter(base_lr=0.1, lr_policy="fixed", random_seed=1, display=1)
        param.debug_info = debug
        param.net_param.CopyFrom(net_param(LAYERS + total("c2")))
        solver = Solver(param, create_backend("cpu"))
        solver.step(1)
        assert ((2,) in forward(solver.net)) == debug


def test_the_pooling_gates_the_relu_if_activations_share_memory() -> None:
    gradients = []
    for sharing, steps in ((None, [(4,), (3,), (2,), (1,)]), (Sharing(), [(4,), (3, 2), (1,)])):
        with made(POOLED, proto.TRAIN, sharing=sharing) as net:
            assert backward(net) == steps
            net.forward()
            net.backward()
            gradients.append([blob.diff.host().copy() for blob in net.params.learnable])
            # A part of the layers that separates the two.
            assert backward(net, 4, 3) == [(4,), (3,)]
            assert backward(net, 2) == [(2,), (1,)]
            net.before_forward.append(lambda i: None)
            assert backward(net) == [(4,), (3,), (2,), (1,)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*gradients))


@pytest.mark.parametrize(
    "layers",
    [
        POOLED.replace("kernel_size: 2", "pool: AVE kernel_size: 2"),
        POOLED.replace(total("p1"), layer("ReLU", "r2", "p1", top="p1") + total("p1")),
    ],
    ids=["average", "top overwritten"],
)
def test_poolings_that_cannot_gate(layers: str) -> None:
    with made(layers, proto.TRAIN, sharing=Sharing()) as net:
        assert all(len(step) == 1 for step in backward(net))


def test_layers_without_a_needed_gradient_have_no_step_but_hooks() -> None:
    seen: list[int] = []
    with made(POOLED, proto.TRAIN) as net:
        net.after_backward.append(seen.append)
        net.forward()
        net.backward()
        assert seen == [4, 3, 2, 1, 0]
        assert (0,) not in backward(net)


def test_every_layer_has_a_step_on_request() -> None:
    with made(LAYERS) as net:
        assert backward(net) == []
        assert backward(net, every=True) == [(3,), (2,), (1,), (0,)]
        seen: list[int] = []
        net.forward()
        net.blobs["c2"].diff.mutable_host()[...] = 1
        net.backward(every_layer=True, after_layer=seen.append)
        assert seen == [3, 2, 1, 0]
        assert net.layers[3].blobs[0].diff.host().any()


def test_schedules_are_cached_until_something_they_depend_on_changes(net: Net) -> None:
    span = PassRange(Direction.FORWARD, 0, 3)
    first = net.schedule(span)
    assert net.schedule(span) is first
    net.before_forward.append(lambda i: None)
    assert net.schedule(span) is not first
    net.before_forward.clear()
    assert net.schedule(span) is first
    assert backward(net) == []
    net.layer_need_backward = [False, False, True, True]
    assert backward(net) == [(3,), (2,)]
    net.layer_need_backward[1] = True
    assert backward(net) == [(3,), (2,), (1,)]


def test_a_change_of_bottom_need_backward_takes_effect() -> None:
    with made(POOLED, proto.TRAIN) as net:
        net.forward()
        net.backward()
        assert not net.blobs["data"].diff.host().any()
        net.bottom_need_backward[1] = [True]
        net.backward()
        assert net.blobs["data"].diff.host().any()


def test_a_net_is_freed_without_garbage_collection() -> None:
    net = made(POOLED, proto.TRAIN)
    net.forward()
    net.backward()
    freed = weakref.ref(net)
    gc.disable()
    try:
        del net
        assert freed() is None
    finally:
        gc.enable()


def test_an_empty_range_has_no_steps(net: Net) -> None:
    assert net.forward(3, 1) == 0
    assert forward(net, 3, 1) == []


def test_backward_is_refused_where_activations_are_lost() -> None:
    with made(POOLED, sharing=Sharing()) as net:
        net.forward()
        with pytest.raises(TrainingError, match="expected a net that learns in phase TRAIN"):
            net.backward()


@dataclass
class Recorded:
    """The part of a layer that a schedule reads; its passes are written to a list."""

    name: str
    calls: list[str]
    can_rectify: bool = False
    rectifies: bool = False
    can_gate_relu: bool = False
    can_fold: bool = False
    only_ops: bool = True
    loss_weights: tuple[float, ...] = ()

    def reshape(self, bottom: Any, top: Any) -> None:
        self.calls.append(f"reshape {self.name}")

    def forward(self, bottom: Any, top: Any) -> None:
        self.calls.append(f"forward {self.name}")

    def forward_relu(self, bottom: Any, top: Any) -> None:
        self.calls.append(f"forward_relu {self.name}")

    def backward(self, top: Any, down: Any, bottom: Any) -> None:
        self.calls.append(f"backward {self.name}")

    def backward_relu(self, top: Any, down: Any, bottom: Any) -> None:
        self.calls.append(f"backward_relu {self.name}")

    def seed_loss_weights(self, top: Any) -> None:
        self.calls.append(f"seed {self.name}")

    def weighted_loss(self, top: Any) -> float:
        return 2.5


@dataclass
class Chain:
    """A wiring without a net: x -> c -> relu -> pool -> loss."""

    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        make = lambda name, **more: Recorded(name, self.calls, **more)  # noqa: E731
        self.layers: list[Any] = [
            make("c", can_rectify=True),
            make("relu", rectifies=True),
            make("pool", can_gate_relu=True),
            make("loss", loss_weights=(1.0,), only_ops=False),
        ]
        x, c, pool, loss = (SimpleNamespace(name=name, shape=(1,)) for name in "xcpl")
        self.bottoms: list[Any] = [[x], [c], [c], [pool]]
        self.tops: list[Any] = [[c], [c], [pool], [loss]]
        self.layer_need_backward = [True] * 4
        self.bottom_need_backward = [[True]] * 4


def test_a_schedule_needs_no_net() -> None:
    chain = Chain()
    steps = schedule(chain, PassRange(Direction.FORWARD, 0, 3), observed=False)
    assert run(steps) == 2.5
    assert [step.recordable for step in steps] == [True, True, False]
    assert chain.calls == [
        "reshape c",
        "forward_relu c",
        "reshape pool",
        "forward pool",
        "reshape loss",
        "seed loss",
        "forward loss",
    ]
    chain.calls.clear()
    assert run(schedule(chain, PassRange(Direction.BACKWARD, 3, 0), observed=False)) == 0
    assert chain.calls == ["backward loss", "backward_relu pool", "backward c"]
    chain.calls.clear()
    run(schedule(chain, PassRange(Direction.BACKWARD, 3, 1), observed=True))
    assert chain.calls == ["backward loss", "backward pool", "backward relu"]


def test_a_relu_without_a_needed_gradient_is_not_fused_backward() -> None:
    chain = Chain()
    chain.layer_need_backward = [False, False, True, True]
    steps = schedule(chain, PassRange(Direction.BACKWARD, 3, 0), observed=False)
    assert [step.layers for step in steps] == [(3,), (2,)]
