"""Layers folded into the filters before them: results, and when layers are not folded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.core.sharing import Sharing
from runtime.net import Net
from runtime.net.schedule import Direction, PassRange

SHAPE = "shape { dim: 2 dim: 4 dim: 7 dim: 9 }"
DATA = f'layer {{ name: "data" type: "Input" top: "x" input_param {{ {SHAPE} }} }}'
NORM = 'layer { name: "norm" type: "BatchNorm" bottom: "y" top: "y" }'
SCALE = 'layer { name: "scale" type: "Scale" bottom: "y" top: "y" scale_param { bias_term: true } }'
BIAS = 'layer { name: "bias" type: "Bias" bottom: "y" top: "y" }'
RELU = 'layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }'
MEAN = "pooling_param { pool: AVE kernel_size: 2 }"
END = f'layer {{ name: "end" type: "Pooling" bottom: "y" top: "end" {MEAN} }}'
# A program has at least three calls.
TAIL = 'layer { name: "tanh" type: "TanH" bottom: "end" top: "tanh" }'


def conv(param: str = "num_output: 6 kernel_size: 3 pad: 1", kind: str = "Convolution") -> str:
    filler = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" }'
    return (
        f'layer {{ name: "conv" type: "{kind}" bottom: "x" top: "y" '
        f"convolution_param {{ {param} {filler} }} }}"
    )


def build(*layers: str, phase: int = proto.TEST, **options: Any) -> Net:
    """A net whose blobs and input hold random numbers."""
    context = RunContext(
        seed=1,
        rng=CaffeRandom(1),
        sharing=Sharing(frozenset({"end"})) if options.pop("shared", False) else None,
    )
    source = "\n".join((DATA, *layers))
    param = text.parse(source, proto.NetParameter, "net")
    backend = options.pop("backend", None) or CpuBackend(**{"threads": 2, **options})
    net = Net(param, phase, backend, context)
    rng = np.random.default_rng(7)
    for layer in net.layers:
        for i, blob in enumerate(layer.blobs):
            values = rng.normal(size=blob.shape)
            if layer.type == "BatchNorm":
                values = np.array([values, rng.uniform(0.5, 4, blob.shape), [2.5]][i])
            blob.data.mutable_host()[...] = values
    net.blobs["x"].data.mutable_host()[...] = rng.normal(size=net.blobs["x"].shape)
    return net


def steps(net: Net, first: int = 0, last: int | None = None, every: bool = False) -> list[Any]:
    last = len(net.layers) - 1 if last is None else last
    span = PassRange(Direction.FORWARD, first, last)
    return [step.layers for step in net.schedule(span, every)]


def result(net: Net, name: str = "end") -> Any:
    net.forward()
    return net.blobs[name].data.host().copy()


CHAINS = {
    "norm": (conv(), NORM),
    "norm, scale and relu": (conv(), NORM, SCALE, RELU),
    "without a bias": (conv("num_output: 6 kernel_size: 3 bias_term: false"), NORM, SCALE, RELU),
    "scale": (conv(), SCALE, RELU),
    "bias": (conv("num_output: 6 kernel_size: 1"), BIAS, RELU),
    "scale without a bias": (conv(), NORM, SCALE.replace("bias_term: true", ""), BIAS),
    "negative axis": (conv(), NORM, SCALE.replace("bias_term: true", "axis: -3"), RELU),
    "groups": (conv("num_output: 6 kernel_size: 3 stride: 2 group: 2"), NORM, SCALE, RELU),
    "depthwise": (conv("kernel_size: 3 pad: 1", "DepthwiseConvolution"), NORM, SCALE, RELU),
    "depthwise of ShuffleNet": (conv("kernel_size: 3", "ConvolutionDepthwise"), NORM, SCALE),
    "from a norm on": (NORM.replace('bottom: "y"', 'bottom: "x"'), SCALE, RELU),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("native", [None, False])
def test_results_are_those_of_single_layers(name: str, native: bool | None) -> None:
    """The tolerance is 8 roundings of the largest result."""
    layers = (*CHAINS[name], END)
    with build(*layers, native=native) as net, build(*layers, dtype=np.float64) as single:
        single.blobs["x"].data.mutable_host()[...] = net.blobs["x"].data.host()
        for layer, other in zip(net.layers, single.layers):
            for blob, exact in zip(layer.blobs, other.blobs):
                exact.data.mutable_host()[...] = blob.data.host()
        assert len(steps(net)) == 3
        assert len(steps(single)) > 3
        want = result(single)
        for _ in range(5):
            error = np.abs(result(net) - want).max() / np.abs(want).max()
            assert error < 8 * 2.0**-24


def test_blobs_are_unchanged() -> None:
    with build(conv(), NORM, SCALE, RELU, END) as net:
        blobs = [blob for layer in net.layers for blob in layer.blobs]
        before = [blob.data.host().tobytes() for blob in blobs]
        result(net)
        assert [blob.data.host().tobytes() for blob in blobs] == before


def test_kernels_of_gpus_fold() -> None:
    layers = (*CHAINS["norm, scale and relu"], END, TAIL)
    with build(*layers) as net, build(*layers, backend=create_backend("emu")) as emulated:
        assert steps(emulated) == steps(net)
        for factor in (1.0, 0.5, 1.0, 1.0, 1.0):
            for both in (net, emulated):
                both.layers[1].blobs[0].data.mutable_host()[...] *= factor
            np.testing.assert_allclose(result(emulated), result(net), rtol=0, atol=3e-6)


@pytest.mark.parametrize("index", range(1, 4))
@pytest.mark.parametrize("replay", [False, True])
def test_changed_blobs_are_used(index: int, replay: bool) -> None:
    layers = (conv(), NORM, SCALE, RELU, END, TAIL)
    with build(*layers, replay=replay) as net, build(*layers, exact=True) as single:
        for change in range(4):
            for both in (net, single):
                for blob in both.layers[index].blobs:
                    blob.data.mutable_host()[...] *= 1 + 0.25 * (change + 1)
            for _ in range(6 if change % 2 else 1):
                np.testing.assert_allclose(result(net), result(single), rtol=0, atol=3e-5)
        assert bool(net.replayed[0]) == (replay and net.backend.recorder is not None)


@pytest.mark.parametrize("shared", [False, True])
def test_bits_do_not_depend_on_threads_and_replay(shared: bool) -> None:
    layers, results = (*CHAINS["norm, scale and relu"], END, TAIL), set()
    for threads in (1, 2, 3):
        for replay in (False, True):
            with build(*layers, threads=threads, replay=replay, shared=shared) as net:
                results |= {result(net).tobytes() for _ in range(6)}
    assert len(results) == 1


SEPARATE: dict[str, tuple[str, ...]] = {
    "statistics of the batch": (
        conv(),
        NORM.replace("bottom", "batch_norm_param { use_global_stats: false } bottom"),
        END,
    ),
    "another top": (conv(), NORM.replace('top: "y"', 'top: "z"'), END),
    "a factor from a blob": (
        conv("num_output: 4 kernel_size: 1"),
        SCALE.replace('bottom: "y"', 'bottom: "y" bottom: "x"').replace(
            "bias_term: true", "axis: 0"
        ),
        END,
    ),
    "another axis": (conv(), SCALE.replace("bias_term: true", "axis: 2"), END),
    "several axes": (conv(), SCALE.replace("bias_term: true", "num_axes: 2"), END),
    "gradients": ("force_backward: true", conv(), NORM, END),
    "a loss weight": (conv(), NORM.replace("bottom", "loss_weight: 1 bottom"), END),
    "transposed": (conv(kind="Deconvolution"), NORM, END),
}


@pytest.mark.parametrize("name", SEPARATE)
def test_layers_that_run_separately(name: str) -> None:
    layers = SEPARATE[name]
    with build(*layers) as net:
        assert steps(net) == [(i,) for i in range(len(net.layers))]
        assert np.isfinite(result(net)).all()


def test_observed_passes_and_exact_backends_do_not_fold() -> None:
    layers, separate = (conv(), NORM, SCALE, RELU, END), [(0,), (1,), (2,), (3, 4), (5,)]
    with build(*layers) as net:
        assert steps(net) == [(0,), (1, 2, 3, 4), (5,)]
        assert steps(net, every=True) == separate
        net.after_forward.append(lambda index: None)
        assert steps(net) == [(i,) for i in range(6)]
    for options in ({"exact": True}, {"dtype": np.float64}, {"phase": proto.TRAIN}):
        with build(*layers, **options) as net:
            assert steps(net) == separate


def test_parts_of_a_chain() -> None:
    layers = (conv(), NORM, SCALE, RELU, END)
    with build(*layers) as net, build(*layers, exact=True) as single:
        assert steps(net, 0, 2) == [(0,), (1, 2)]
        assert steps(net, 2, 5) == [(2, 3, 4), (5,)]
        for last in (2, 1, 3, 2, 5):
            for both in (net, single):
                both.forward(end=last)
            got, want = (both.blobs["y"].data.host() for both in (net, single))
            np.testing.assert_allclose(got, want, rtol=0, atol=3e-5)


def expose(net: Net) -> None:
    net.layers[1].blobs[0].data.exposed_host()


def vanish(net: Net) -> None:
    net.layers[2].blobs[1].data.mutable_host()[0] = -1.0


@pytest.mark.parametrize("change", [expose, vanish])
def test_maps_that_cannot_be_folded(change: Callable[[Net], None]) -> None:
    """Exposed filters may change at any time; a negative variance has no square root."""
    layers = (conv(), NORM, SCALE, RELU, END)
    with build(*layers) as net, build(*layers) as single:
        change(net)
        change(single)
        single.backend.folds = False
        for _ in range(5):
            assert result(net).tobytes() == result(single).tobytes()
        filters = net.layers[1].blobs[0].data
        if change is expose:
            filters.host()[...] *= 2
            single.layers[1].blobs[0].data.host()[...] *= 2
            assert result(net).tobytes() == result(single).tobytes()


def test_every_layer_has_a_backward_pass() -> None:
    with build(conv(), NORM, SCALE, RELU, END) as net:
        net.forward(every_layer=True)
        net.blobs["end"].diff.mutable_host()[...] = 1.0
        net.backward(every_layer=True)
        assert net.layers[3].kept_input.shape == net.blobs["y"].shape  # type: ignore[attr-defined]
