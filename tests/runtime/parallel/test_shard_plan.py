"""The number of shards of a batch, and nets that cannot be divided."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from prototxt_gen import heads, proto, text
from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.sidecar import Sidecar
from prototxt_gen.spec import builtin_spec
from prototxt_gen.vgg import NETS
from runtime.core.context import PassWindow
from runtime.net.batch_cut import batch_of_sources, cut_batch
from runtime.net.building import net_state
from runtime.parallel.shard_plan import PER_GPU, plan_shards
from runtime.solvers.options import SolverOptions

DATA = (
    'layer {{ name: "data" type: "Data" top: "data" top: "label" data_param {{ batch_size: {} }} }}'
)
LOSS = (
    'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
    'inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
)


def solver(net: str, more: str = "") -> Any:
    param = text.parse(more, proto.SolverParameter)
    param.net_param.CopyFrom(text.parse(f'name: "n" {net}', proto.NetParameter))
    return param


def plan(net: str, replicas: int = 1, shards: int | None = None, **others: Any) -> Any:
    options = SolverOptions(sidecar=Sidecar(shards=shards))
    return plan_shards(solver(net, others.pop("more", "")), options, replicas, **others)


@pytest.mark.parametrize(
    ("batch", "replicas", "expected"),
    [
        (256, 2, 8),
        (256, 8, 8),
        (512, 4, 8),
        (64, 1, 1),
        (64, 2, 8),
        (12, 4, 4),
        (12, 3, 3),
        (257, 1, 1),
        (256, 16, 16),
    ],
)
def test_the_default(batch: int, replicas: int, expected: int) -> None:
    assert plan(DATA.format(batch) + LOSS, replicas).shards == expected


FED = (
    'layer {{ name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param {{ '
    "shape {{ dim: {0} dim: 3 dim: 224 dim: 224 }} shape {{ dim: {0} }} }} }}"
)


def papers_net(letter: str, batch: int) -> str:
    layers = [
        layer for layer in heads.train_val(builtin_spec(letter)).layer if layer.type != "Data"
    ]
    return FED.format(batch) + "".join(f"layer {{ {text.to_text(layer)} }}" for layer in layers)


@pytest.mark.parametrize("letter", list(NETS))
def test_the_papers_nets_at_the_papers_batch(letter: str) -> None:
    """They get 8 shards on 1, 2, 4 and 8 devices by default."""
    net = papers_net(letter, 256)
    assert [plan(net, replicas).shards for replicas in (1, 2, 4, 8)] == [8, 8, 8, 8]
    assert plan(papers_net(letter, 248)).shards == 1


def test_a_net_that_shards_would_slow_is_left_whole(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    assert plan(FED.format(256) + LOSS).shards == 1
    assert caplog.messages == [
        "The batch of 256 is computed in one shard, because 8 would be slower on one device; "
        "with [parallel] shards = 8 in the sidecar the weights equal those of several devices"
    ]
    # Mostly fully-connected: many parameters in relation to its arithmetic.
    wide = LOSS.replace("num_output: 2", "num_output: 4000")
    assert plan(FED.format(256) + wide).shards == 1
    assert plan(FED.format(16 * 1024) + wide).shards == 8


def test_the_sidecar_and_then_the_snapshot_decide() -> None:
    net = DATA.format(64) + LOSS
    assert plan(net, 2, shards=4).shards == 4
    assert plan(net, 1, resumed=16).shards == 16
    assert plan(net, 1, shards=2, resumed=16).shards == 2
    assert plan(net, 1, resumed=1).shards == 1


def test_another_number_than_on_one_device_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    plan(DATA.format(256) + LOSS, 4)
    assert caplog.text == ""
    plan(DATA.format(12) + LOSS, 4)
    assert "[parallel] shards = 4 in the sidecar makes them the same" in caplog.text


def test_runs_and_windows() -> None:
    found = plan(DATA.format(16) + LOSS, 2, shards=4, more="iter_size: 3")
    assert [found.run_of(r) for r in range(2)] == [range(0, 2), range(2, 4)]
    assert found.window(1) == PassWindow(12, 6, 12)
    assert found.net_parts == 4


def test_batch_of_each_gpu() -> None:
    found = plan(DATA.format(5) + LOSS, 3, semantics=PER_GPU)
    assert (found.shards, found.net_parts) == (3, 1)


@pytest.mark.parametrize(
    ("batch", "replicas", "shards", "message"),
    [
        (
            10,
            4,
            None,
            "the batch of 10 is not divisible into 4 equal shards for 4 replica(s); expe",
        ),
        (10, 1, 4, "expected a multiple of 4; change batch_size or the number of devices, or use "),
        (16, 3, 8, "[parallel] shards: 8 shards do not divide among 3 replicas; expected a multi"),
    ],
)
def test_what_does_not_divide(batch: int, replicas: int, shards: int | None, message: str) -> None:
    with pytest.raises(ProtoError) as caught:
        plan(DATA.format(batch) + LOSS, replicas, shards)
    assert message in str(caught.value)


INPUT = 'layer { name: "in" type: "Input" top: "data" top: "label" }'
NORM = 'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "data" }'
SUM = LOSS.replace('top: "loss"', 'top: "loss" loss_param { normalization: NONE }')
IGNORE = LOSS.replace('top: "loss"', 'top: "loss" loss_param { ignore_label: 1 }')


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (INPUT + LOSS, "got Input; train it on one device, in one shard"),
        (
            DATA.format(16) + NORM + LOSS,
            "layer 'bn' (BatchNorm) computes statistics over its batch",
        ),
        (DATA.format(16) + SUM, "does not divide its loss by the number of samples; expected"),
        (
            DATA.format(16) + IGNORE,
            "divides by the number of labels that are not ignored, which differs by shard",
        ),
    ],
)
def test_nets_that_are_not_the_mean_of_their_shards(net: str, message: str) -> None:
    assert plan(net.replace("16", "256")).shards == 1
    for asked in ({"replicas": 2}, {"shards": 2}):
        with pytest.raises(UnsupportedError) as caught:
            plan(net, **asked)  # type: ignore[arg-type]
        assert message in str(caught.value)


def test_debug_info_needs_one_pass() -> None:
    assert plan(DATA.format(256) + LOSS, more="debug_info: true").shards == 1
    with pytest.raises(UnsupportedError, match="debug_info logs one pass of one net; expected"):
        plan(DATA.format(256) + LOSS, 2, more="debug_info: true")


def test_cutting() -> None:
    net = text.parse(f'name: "n" {DATA.format(12)} {LOSS}', proto.NetParameter)
    state = net_state(proto.TRAIN)
    cut = cut_batch(net, state, 3)
    assert batch_of_sources(cut, state) == 4 and batch_of_sources(net, state) == 12
    with pytest.raises(ProtoError, match="the batch of 12 is not divisible into 5 equal parts"):
        cut_batch(net, state, 5)
    given = text.parse(f'name: "n" {INPUT} {LOSS}', proto.NetParameter)
    with pytest.raises(UnsupportedError, match="its batch cannot be split; expected data layers"):
        cut_batch(given, state, 2)


def test_constants_are_cut_and_random_data_is_not() -> None:
    dummy = (
        'layer {{ name: "d" type: "DummyData" top: "data" dummy_data_param {{ shape {{ dim: 8 '
        'dim: 3 }} data_filler {{ type: "{}" }} }} }}'
    )
    state = net_state(proto.TRAIN)
    constant = text.parse(dummy.format("constant"), proto.NetParameter)
    assert list(cut_batch(constant, state, 4).layer[0].dummy_data_param.shape[0].dim) == [2, 3]
    assert batch_of_sources(text.parse(dummy.format("uniform"), proto.NetParameter), state) is None
