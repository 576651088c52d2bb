"""Pointwise layers in programs of the CPU: the bits do not depend on replay, threads or batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cpu.native_library import why_not
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net

pytestmark = pytest.mark.skipif(why_not() is not None, reason="the kernels are not built")

UNARY = [
    *("Sigmoid", "TanH", "ELU", "Swish", "AbsVal", "BNLL", "Exp"),
    'Clip" clip_param { min: 0 max: 6 } name: "clip',
    'Power" power_param { power: 2 shift: 1 } name: "power',
    'Log" log_param { shift: 400 } name: "log',
]
CHANNELWISE = [
    'BatchNorm" name: "norm',
    'Scale" scale_param { bias_term: true filler { type: "gaussian" } } name: "scale',
    'Bias" bias_param { filler { type: "gaussian" } } name: "bias',
    'PReLU" name: "prelu',
]


def source(n: int, in_place: bool) -> str:
    """A chain of all layers; the ends of two chains are added, multiplied and compared."""
    layers = [
        "force_backward: true",
        'layer { name: "data" type: "Input" top: "data" '
        f"input_param {{ shape {{ dim: {n} dim: 5 dim: 7 dim: 9 }} }} }}",
    ]
    bottom = "data"
    for i, kind in enumerate([*CHANNELWISE, *UNARY]):
        # A neuron layer that needs its input for the gradient may not work in place.
        top = bottom if in_place and 0 < i < len(CHANNELWISE) else f"b{i}"
        name = "" if "name" in kind else f'name: "l{i}"'
        layers.append(f'layer {{ {name} bottom: "{bottom}" top: "{top}" type: "{kind}" }}')
        layers.append(f'layer {{ name: "relu{i}" type: "ReLU" bottom: "{top}" top: "{top}" }}')
        bottom = top
    for i, operation in enumerate(("SUM", "PROD", "MAX")):
        param = f"eltwise_param {{ operation: {operation} }}"
        layers.append(
            f'layer {{ name: "e{i}" type: "Eltwise" bottom: "{bottom}" bottom: "data" '
            f'top: "e{i}" {param} }}'
        )
        bottom = f"e{i}"
    return "\n".join(layers)


def passes(
    phase: int, n: int = 3, threads: int = 2, replay: bool = True, in_place: bool = False
) -> tuple[list[Any], Any]:
    """The values and gradients of five passes, and the layers in programs."""
    param = text.parse(source(n, in_place), proto.NetParameter, "pointwise")
    context = RunContext(seed=1, rng=CaffeRandom(1))
    results: list[Any] = []
    with Net(param, phase, CpuBackend(threads=threads, replay=replay), context) as net:
        for number in range(5):
            rng = np.random.default_rng(number)
            net.blobs["data"].data.mutable_host()[...] = rng.normal(size=(4, 5, 7, 9))[:n]
            net.forward()
            top = net.blobs["e2"]
            top.diff.mutable_host()[...] = rng.normal(size=(4, 5, 7, 9))[:n]
            net.clear_param_diffs()
            net.backward()
            results += [top.data.host().copy(), net.blobs["data"].diff.host().copy()]
            blobs = [blob for layer in net.layers for blob in layer.blobs]
            results += [array.host().copy() for b in blobs for array in (b.data, b.diff)]
        return results, net.replayed


@pytest.mark.parametrize("phase", [proto.TRAIN, proto.TEST], ids=["train", "test"])
@pytest.mark.parametrize("in_place", [False, True])
def test_bits_do_not_depend_on_replay_and_threads(phase: int, in_place: bool) -> None:
    expected, replayed = passes(phase, replay=False, in_place=in_place)
    assert replayed == (frozenset(), frozenset())
    for threads in (1, 2, 3):
        got, replayed = passes(phase, threads=threads, in_place=in_place)
        assert len(replayed[0]) > 20 and len(replayed[1]) > 20
        for a, b in zip(expected, got, strict=True):
            assert np.isfinite(a).all()
            assert a.tobytes() == b.tobytes()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    small, large = (passes(proto.TEST, n=n)[0][0] for n in (2, 4))
    assert small.tobytes() == large[:2].tobytes()


def test_changed_statistics_are_used() -> None:
    """A replayed pass does not use the mean of earlier statistics."""
    param = text.parse(source(2, False), proto.NetParameter, "pointwise")
    with Net(param, proto.TEST, CpuBackend(threads=1), RunContext()) as net:
        layer = net.layer_by_name("norm")
        assert layer is not None
        x = np.random.default_rng(0).normal(size=(2, 5, 7, 9)).astype(np.float32)
        net.blobs["data"].data.mutable_host()[...] = x
        for blob, value in zip(layer.blobs, (0.5, 2.0, 2.0)):
            blob.data.mutable_host()[...] = value
        for mean in (0.25, 0.25, 0.25, 0.25, 0.75, 0.75, 0.75, 0.75):
            if layer.blobs[0].data.host()[0] != 2 * mean:
                layer.blobs[0].data.mutable_host()[...] = 2 * mean
            net.forward()
            want = np.maximum((x - mean) / np.sqrt(1 + 1e-5), 0)
            np.testing.assert_allclose(net.blobs["b0"].data.host(), want, atol=1e-6)
        assert net.replayed[0]
