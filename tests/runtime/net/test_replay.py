"""What repeats is replayed, to the same bits; what cannot be is launched one by one."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import pytest

from prototxt_gen import proto
from prototxt_gen.errors import DeviceError
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from tests.runtime.net.replayed import (
    TRAINED,
    built,
    feed,
    launches,
    passes,
    replays,
    same,
    trained,
    weights,
)
from tests.runtime.small_nets import net_param

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        'lr_policy: "step" gamma: 0.5 stepsize: 5',
        'lr_policy: "poly" power: 1',
        'lr_policy: "fixed" iter_size: 2',
        'lr_policy: "exp" gamma: 0.9 clip_gradients: 0.1 iter_size: 3',
    ],
)
def test_training_is_the_same_bits(settings: str, share: bool) -> None:
    replayed, plain = (trained("emu", settings, share, replay=on) for on in (True, False))
    assert replays(replayed.net) >= 18
    assert same(weights(replayed), weights(plain))
    assert same(
        [blob.data.host() for blob in replayed.engine.history],
        [blob.data.host() for blob in plain.engine.history],
    )
    assert launches(replayed.net) < 0.6 * launches(plain.net)


def test_a_rule_that_computes_on_the_host_is_left_alone() -> None:
    settings = 'lr_policy: "fixed" type: "AdaGrad"'
    replayed, plain = (trained("emu", settings, replay=on) for on in (True, False))
    assert replays(replayed.net) > 0
    assert same(weights(replayed), weights(plain))


@pytest.mark.parametrize("streams", ["late", "early"])
def test_order_on_the_device_does_not_matter(streams: str) -> None:
    settings = 'lr_policy: "poly" power: 1'
    one, other = trained("emu", settings, streams=streams), trained("emu", settings, replay=False)
    assert replays(one.net) > 0
    assert same(weights(one), weights(other))


def test_a_step_in_three_replays_and_what_reads_labels() -> None:
    solver = trained("emu", 'lr_policy: "poly" power: 1')
    assert solver.net.replayed == (frozenset(range(1, 9)), frozenset(range(1, 10)))
    before = launches(solver.net), replays(solver.net)
    solver.step(1)
    # The soft-max, its loss in two kernels, and the sum over the loss in two.
    assert (launches(solver.net) - before[0], replays(solver.net) - before[1]) == (5, 3)


def test_dropout_draws_the_cpus_masks_in_every_pass() -> None:
    context = RunContext(seed=3, rng=CaffeRandom(3))
    with (
        built(TRAINED) as net,
        Net(net_param(TRAINED), proto.TRAIN, create_backend("cpu"), context) as expected,
    ):
        masks = []
        for one in (net, expected):
            one.context.pass_number = 7
            found = []
            for seed in range(8):
                feed(one, seed)
                one.forward()
                one.backward()
                drop: Any = one.layer_by_name("drop2")
                found.append(drop.mask.host().copy())
            masks.append(found)
        assert replays(net) >= 4
        assert same(*masks)
        assert len({mask.tobytes() for mask in masks[0]}) == 8


def test_a_clock_that_jumps_is_followed() -> None:
    results = []
    for on in (True, False):
        with built(TRAINED, replay=on) as net:
            found = passes(net, 6)
            net.context.pass_number = 1 << 40
            results.append(found + passes(net, 2))
    assert same(*results)


def test_another_seed_draws_other_masks() -> None:
    results = []
    for on in (True, False):
        with built(TRAINED, replay=on) as net:
            found = passes(net, 6)
            net.context.seed += 1
            results.append(found + passes(net, 6))
    assert same(*results)


@pytest.mark.gpu
def test_training_on_a_gpu_is_the_same_bits() -> None:
    try:
        replayed, plain = (
            trained("gpu", 'lr_policy: "poly" power: 1 iter_size: 2', True, replay=on)
            for on in (True, False)
        )
    except DeviceError as cause:
        pytest.skip(str(cause))
    assert replays(replayed.net) >= 40
    assert same(weights(replayed), weights(plain))


def test_a_driver_that_makes_no_graphs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = 'lr_policy: "poly" power: 1'
    plain = trained("emu", settings, replay=False)
    tried: list[int] = []

    def refused(*_: Any) -> Any:
        tried.append(1)
        raise DeviceError("gpu: cuStreamEndCapture failed: invalid; use --launch-by-launch")

    monkeypatch.setattr(EmulatorDriver, "capture", refused)
    with caplog.at_level(logging.WARNING, "verydeep.replay"):
        solver = trained("emu", settings)
    assert replays(solver.net) == 0 and same(weights(solver), weights(plain))
    said = [line for line in caplog.messages if "cuStreamEndCapture failed" in line]
    # Forward, backward and the update: each finds out once.
    assert len(said) == len(tried) <= 3
    assert all(line.endswith("launched one by one") for line in said) and said
