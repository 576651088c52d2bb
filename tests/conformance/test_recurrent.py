"""LSTM and RNN against the nets that original Caffe unrolls them into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from runtime.weights.net_weights import copy_trained_layers, save

T, N, D = 3, 2, 4
CONT = np.array([[1, 0], [1, 1], [0, 1]])
FILLERS = (
    'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "uniform" min: -1 max: 1 }'
)
INPUTS = {"x": (T, N, 5), "cont": (T, N), "static": (N, 6)}


def inputs(names: str, **changed: tuple[int, ...]) -> str:
    lines = ["force_backward: true"]
    shapes = {**INPUTS, "h_0": (1, N, D), "c_0": (1, N, D), **changed}
    for name in names.split():
        dims = " ".join(f"dim: {d}" for d in shapes[name])
        lines.append(
            f'layer {{ name: "{name}" type: "Input" top: "{name}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    return "\n".join(lines) + "\n"


def layer(kind: str, name: str, bottoms: str, tops: str, rest: str = "") -> str:
    wires = "".join(f' bottom: "{b}"' for b in bottoms.split())
    wires += "".join(f' top: "{t}"' for t in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}"{wires} {rest} }}\n'


def product(
    name: str, bottom: str, outputs: int, weight: str, bias: str = "", axis: int = 2
) -> str:
    """An InnerProduct whose weights are shared by name."""
    params = f'param {{ name: "{weight}" }}' + (f' param {{ name: "{bias}" }}' if bias else "")
    term = str(bool(bias)).lower()
    settings = f"num_output: {outputs} axis: {axis} bias_term: {term} {FILLERS}"
    return layer(
        "InnerProduct", name, bottom, name, f"{params} inner_product_param {{ {settings} }}"
    )


def unrolled(kind: str) -> str:
    """Caffe's unrolled net, with the first states as inputs."""
    rows = 4 * D if kind == "LSTM" else D
    steps = range(1, T + 1)
    net = inputs("x cont static h_0 c_0" if kind == "LSTM" else "x cont static h_0")
    net += product("wx", "x", rows, "W_x", "b_x")
    net += product("ws_flat", "static", rows, "W_s", axis=1)
    shape = f"reshape_param {{ shape {{ dim: 1 dim: -1 dim: {rows} }} }}"
    net += layer("Reshape", "ws", "ws_flat", "ws", shape)
    for name in ("wx", "cont"):
        net += layer(
            "Slice",
            f"{name}_slice",
            name,
            " ".join(f"{name}_{t}" for t in steps),
            "slice_param { axis: 0 }",
        )
    for t in steps:
        net += layer(
            "Scale", f"kept_{t}", f"h_{t - 1} cont_{t}", f"kept_{t}", "scale_param { axis: 0 }"
        )
        net += product(f"wh_{t}", f"kept_{t}", rows, "W_h")
        net += layer("Eltwise", f"sum_{t}", f"wh_{t} wx_{t} ws", f"sum_{t}")
        if kind == "LSTM":
            net += layer("LSTMUnit", f"unit_{t}", f"c_{t - 1} sum_{t} cont_{t}", f"c_{t} h_{t}")
        else:
            net += layer("TanH", f"h_{t}", f"sum_{t}", f"h_{t}")
            net += product(f"wo_{t}", f"h_{t}", D, "W_o", "b_o")
            net += layer("TanH", f"o_{t}", f"wo_{t}", f"o_{t}")
    output = "h" if kind == "LSTM" else "o"
    names = " ".join(f"{output}_{t}" for t in steps)
    return net + layer("Concat", "y", names, "y", "concat_param { axis: 0 }")


def recurrent(
    kind: str, exposed: bool = True, names: str = "x cont static", **shapes: tuple[int, ...]
) -> str:
    states, last = ("h_0 c_0", "h_T c_T") if kind == "LSTM" else ("h_0", "h_T")
    names, tops = (f"{names} {states}", f"y {last}") if exposed else (names, "y")
    flag = str(exposed).lower()
    settings = f"recurrent_param {{ num_output: {D} expose_hidden: {flag} {FILLERS} }}"
    return inputs(names, **shapes) + layer(kind, "y", names, tops, settings)


def build(content: str) -> Net:
    param = text.parse(content, proto.NetParameter)
    context = RunContext(seed=3, rng=CaffeRandom(3))
    return Net(param, proto.TRAIN, create_backend("cpu", dtype=np.float64), context)


def fill(net: Net) -> None:
    rng = np.random.default_rng(4)
    for name in ("x", "static", "h_0", "c_0"):
        if name in net.blobs:
            net.blobs[name].data.mutable_host()[...] = rng.uniform(-1, 1, net.blobs[name].shape)
    net.blobs["cont"].data.mutable_host()[...] = CONT


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_the_layer_is_its_unrolled_net(kind: str) -> None:
    """Also the numbers drawn for the weights, and their order in weight files."""
    with build(recurrent(kind)) as net, build(unrolled(kind)) as other:
        weights = net.layer_by_name("y").blobs
        assert len(weights) == len(other.params.learnable) == (4 if kind == "LSTM" else 6)
        for blob, expected in zip(weights, other.params.learnable):
            np.testing.assert_array_equal(blob.data.host(), expected.data.host())
        assert net.context.rng.raw() == other.context.rng.raw()
        seed = np.random.default_rng(5).uniform(-1, 1, (T, N, D))
        for each in (net, other):
            fill(each)
            each.forward()
            each.blobs["y"].diff.mutable_host()[...] = seed
            each.clear_param_diffs()
            each.backward()
        pairs = [(net.blobs["y"].data, other.blobs["y"].data)]
        pairs += [(net.blobs["h_T"].data, other.blobs[f"h_{T}"].data)]
        if kind == "LSTM":
            pairs += [(net.blobs["c_T"].data, other.blobs[f"c_{T}"].data)]
        pairs += [(net.blobs[name].diff, other.blobs[name].diff) for name in ("x", "static")]
        pairs += [(a.diff, b.diff) for a, b in zip(weights, other.params.learnable)]
        for ours, expected in pairs:
            assert np.abs(expected.host()).max() > 0
            np.testing.assert_allclose(ours.host(), expected.host(), rtol=1e-10, atol=1e-12)
        assert not net.blobs["h_0"].diff.host().any()


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_states_pass_to_the_next_batch(kind: str) -> None:
    with build(recurrent(kind, exposed=False)) as net, build(recurrent(kind)) as exposed:
        fill(net)
        fill(exposed)
        for name in ("h_0", "c_0"):
            if name in exposed.blobs:
                exposed.blobs[name].data.mutable_host()[...] = 0
        for _ in range(3):
            net.forward()
            exposed.forward()
            np.testing.assert_array_equal(
                net.blobs["y"].data.host(), exposed.blobs["y"].data.host()
            )
            for name in ("h", "c"):
                if f"{name}_0" in exposed.blobs:
                    last = exposed.blobs[f"{name}_T"].data.host()
                    exposed.blobs[f"{name}_0"].data.mutable_host()[...] = last


def test_streams_may_change_and_keep_their_states() -> None:
    with build(recurrent("LSTM", exposed=False, names="x cont")) as net:
        net.blobs["x"].data.mutable_host()[...] = 1
        net.blobs["cont"].data.mutable_host()[...] = 1
        net.forward()
        net.forward()
        expected = net.blobs["y"].data.host().copy()
        net.layer_by_name("y")._states = net.layer_by_name("y")._zeros(N)
        net.forward()
        net.blobs["x"].reshape((T, N + 1, 5))
        net.blobs["cont"].reshape((T, N + 1))
        net.blobs["x"].data.mutable_host()[...] = 1
        net.blobs["cont"].data.mutable_host()[...] = 1
        net.forward()
        np.testing.assert_allclose(net.blobs["y"].data.host()[:, :N], expected)


def test_weights_load_by_the_layers_name(tmp_path: Path) -> None:
    with build(recurrent("LSTM")) as net:
        save(net, tmp_path / "lstm.caffemodel")
        expected = [blob.data.host().copy() for blob in net.layer_by_name("y").blobs]
    with build(recurrent("LSTM")) as net:
        for blob in net.layer_by_name("y").blobs:
            blob.data.mutable_host()[...] = 0
        copy_trained_layers(net, tmp_path / "lstm.caffemodel")
        for blob, values in zip(net.layer_by_name("y").blobs, expected):
            np.testing.assert_allclose(blob.data.host(), values, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (recurrent("LSTM", cont=(T, N + 1)), ShapeError, "x and cont do not match"),
        (recurrent("LSTM", static=(N + 1, 6)), ShapeError, "x_static does not match"),
        (recurrent("RNN", h_0=(N, D)), ShapeError, "first states 'h_0' of shape"),
        (recurrent("RNN", x=(T,)), ShapeError, "x and cont do not match"),
        (recurrent("RNN").replace("num_output: 4", ""), ProtoError, "num_output is 0"),
        (recurrent("LSTM").replace("expose_hidden: true", ""), ProtoError, "expose_hidden: false"),
    ],
)
def test_refusals(content: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(content)


CAPTIONS = """
layer { name: "in" type: "Input" top: "words" top: "cont" top: "image" top: "next"
  input_param { shape { dim: 5 dim: 3 } shape { dim: 5 dim: 3 } shape { dim: 3 dim: 3 }
                shape { dim: 5 dim: 3 } } }
layer { name: "embed" type: "Embed" bottom: "words" top: "embed"
  embed_param { input_dim: 6 num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "lstm" type: "LSTM" bottom: "embed" bottom: "cont" bottom: "image" top: "lstm"
  recurrent_param { num_output: 16 weight_filler { type: "uniform" min: -0.2 max: 0.2 } } }
layer { name: "scores" type: "InnerProduct" bottom: "lstm" top: "scores"
  inner_product_param { num_output: 6 axis: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "next" top: "loss"
  softmax_param { axis: 2 } }
"""


@pytest.mark.slow
def test_an_lstm_learns_captions() -> None:
    """One sentence for each of three images; word 0 begins it. Chance gives a loss of log(6)."""
    sentences = np.array([[1, 2, 3, 4, 5], [3, 3, 3, 1, 1], [3, 3, 1, 5, 2]]).T
    with build(CAPTIONS) as net:
        net.blobs["next"].data.mutable_host()[...] = sentences
        words = np.vstack([np.zeros((1, 3)), sentences[:-1]])
        net.blobs["words"].data.mutable_host()[...] = words
        net.blobs["cont"].data.mutable_host()[...] = words > 0
        net.blobs["image"].data.mutable_host()[...] = np.eye(3)
        history = [np.zeros(blob.shape) for blob in net.params.learnable]
        for _ in range(300):
            net.clear_param_diffs()
            net.forward()
            net.backward()
            for past, blob in zip(history, net.params.learnable):
                past[...] = 0.9 * past + 0.2 * blob.diff.host()
                blob.data.mutable_host()[...] -= past
        scores = net.blobs["scores"].data.host()
        loss = float(net.blobs["loss"].data.host().item())
    assert loss < 0.05
    np.testing.assert_array_equal(scores.argmax(axis=2), sentences)
