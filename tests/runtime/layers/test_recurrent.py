"""LSTM and RNN, compared with nets of all time steps, as Caffe builds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from tests.runtime.small_nets import input_layer

T, N, X, S, D = 4, 3, 5, 2, 6
"""Steps, sequences, numbers of x and of the static input at a step, and outputs."""
SHAPES = {"x": (T, N, X), "cont": (T, N), "static": (N, S), "h0": (1, N, D), "c0": (1, N, D)}
FILLERS = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" std: 0.5 }'
CONT = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]], float)
# The order of the weights in Caffe's unrolled nets.
LSTM_WEIGHTS = ("Wx", "bx", "Ws", "Wh")
RNN_WEIGHTS = ("Wx", "bx", "Ws", "Wh", "Wo", "bo")


def inputs(*names: str) -> str:
    return "force_backward: true\n" + "".join(
        input_layer(*SHAPES[name]).replace('"data"', f'"{name}"') for name in names
    )


def product(name: str, bottom: str, weights: str, outputs: int, axis: int, bias: bool) -> str:
    names = " ".join(f'param {{ name: "{weight}" }}' for weight in weights.split())
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {names} '
        f"inner_product_param {{ num_output: {outputs} axis: {axis} "
        f"bias_term: {str(bias).lower()} }} }}\n"
    )


def steps(name: str, bottom: str) -> str:
    tops = " ".join(f'top: "{name}_{t}"' for t in range(1, T + 1))
    return (
        f'layer {{ name: "{name}" type: "Slice" bottom: "{bottom}" {tops} '
        "slice_param { axis: 0 } }\n"
    )


def unrolled(kind: str) -> str:
    """The net of all steps, with a static input and given initial states."""
    rows = 4 * D if kind == "LSTM" else D
    content = inputs(*SHAPES if kind == "LSTM" else ("x", "cont", "static", "h0"))
    content += product("xw", "x", "Wx bx", rows, 2, True) + steps("xt", "xw")
    content += product("sw", "static", "Ws", rows, 1, False)
    content += (
        'layer { name: "st" type: "Reshape" bottom: "sw" top: "st" reshape_param { '
        f"shape {{ dim: 1 dim: {N} dim: {rows} }} }} }}\n"
    )
    content += steps("ct", "cont")
    h, c = "h0", "c0"
    for t in range(1, T + 1):
        content += (
            f'layer {{ name: "hc_{t}" type: "Scale" bottom: "{h}" bottom: "ct_{t}" top: "hc_{t}" '
            "scale_param { axis: 0 } }\n"
        )
        content += product(f"hw_{t}", f"hc_{t}", "Wh", rows, 2, False)
        content += (
            f'layer {{ name: "z_{t}" type: "Eltwise" bottom: "hw_{t}" bottom: "xt_{t}" '
            f'bottom: "st" top: "z_{t}" }}\n'
        )
        if kind == "LSTM":
            content += (
                f'layer {{ name: "unit_{t}" type: "LSTMUnit" bottom: "{c}" bottom: "z_{t}" '
                f'bottom: "ct_{t}" top: "c_{t}" top: "h_{t}" }}\n'
            )
            output = f"h_{t}"
        else:
            content += f'layer {{ name: "h_{t}" type: "TanH" bottom: "z_{t}" top: "h_{t}" }}\n'
            content += product(f"ow_{t}", f"h_{t}", "Wo bo", D, 2, True)
            content += f'layer {{ name: "y_{t}" type: "TanH" bottom: "ow_{t}" top: "y_{t}" }}\n'
            output = f"y_{t}"
        h, c = f"h_{t}", f"c_{t}"
    letter = output[0]
    bottoms = " ".join(f'bottom: "{letter}_{t}"' for t in range(1, T + 1))
    return (
        content
        + f'layer {{ name: "y" type: "Concat" {bottoms} top: "y" concat_param {{ axis: 0 }} }}'
    )


def layer(kind: str, bottoms: str, tops: str = "y", settings: str = "") -> str:
    ends = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    ends += " " + " ".join(f'top: "{name}"' for name in tops.split())
    return (
        f'layer {{ name: "y" type: "{kind}" {ends} recurrent_param {{ num_output: {D} {settings} '
        f"{FILLERS} }} }}"
    )


def built(content: str, dtype: type = np.float64) -> Net:
    param = text.parse(content, proto.NetParameter, "case")
    context = RunContext(seed=3, rng=CaffeRandom(3))
    return Net(param, proto.TRAIN, create_backend("cpu", dtype=dtype), context)


def give(net: Net, **values: Any) -> None:
    for name, value in values.items():
        net.blobs[name].data.mutable_host()[...] = value


def random_inputs(names: Any) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    return {name: rng.normal(0, 1, SHAPES[name]) for name in names if name != "cont"}


def exposed(kind: str) -> str:
    hidden = "h0 c0" if kind == "LSTM" else "h0"
    final = "y hT cT" if kind == "LSTM" else "y hT"
    bottoms = f"x cont static {hidden}"
    return inputs(*bottoms.split()) + layer(kind, bottoms, final, "expose_hidden: true")


@pytest.mark.parametrize(("kind", "names"), [("LSTM", LSTM_WEIGHTS), ("RNN", RNN_WEIGHTS)])
def test_a_layer_is_the_net_of_all_its_steps(kind: str, names: tuple[str, ...]) -> None:
    with built(exposed(kind)) as net, built(unrolled(kind)) as other:
        recurrent = net.layers[-1]
        assert len(recurrent.blobs) == len(names)
        weights = dict(zip(names, recurrent.blobs, strict=True))
        shared: dict[str, Any] = {}
        for each in other.layers:
            for blob, spec in zip(each.blobs, each.param.param):
                shared[spec.name] = blob
                blob.data.mutable_host()[...] = weights[spec.name].data.host()
        for each in (net, other):
            values = random_inputs(set(each.blobs) & set(SHAPES))
            give(each, cont=CONT, **values)
            each.clear_param_diffs()
            each.forward()
            dy = np.random.default_rng(6).normal(0, 1, (T, N, D))
            each.blobs["y"].diff.mutable_host()[...] = dy
            each.backward()
        close = {"rtol": 1e-11, "atol": 1e-12}
        np.testing.assert_allclose(
            net.blobs["y"].data.host(), other.blobs["y"].data.host(), **close
        )
        last = other.blobs[f"h_{T}"].data.host()
        np.testing.assert_allclose(net.blobs["hT"].data.host(), last, **close)
        if kind == "LSTM":
            last = other.blobs[f"c_{T}"].data.host()
            np.testing.assert_allclose(net.blobs["cT"].data.host(), last, **close)
        for name in ("x", "static"):
            left, right = (each.blobs[name].diff.host() for each in (net, other))
            np.testing.assert_allclose(left, right, **close)
        for name, blob in weights.items():
            total = gradient_of(other, name)
            np.testing.assert_allclose(blob.diff.host(), total, err_msg=name, **close)


def gradient_of(net: Net, name: str) -> Any:
    """The gradient of a shared weight, which the net adds to its first use."""
    for each in net.layers:
        for blob, spec in zip(each.blobs, each.param.param):
            if spec.name == name:
                return blob.diff.host()
    raise KeyError(name)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_the_state_continues_in_the_next_pass(kind: str) -> None:
    """Two passes of 4 steps are one of 8, unless a sequence begins."""
    content = inputs("x", "cont") + layer(kind, "x cont")
    longer = content.replace(f"dim: {T} dim: {N}", f"dim: {2 * T} dim: {N}")
    x = np.random.default_rng(7).normal(0, 1, (2 * T, N, X))
    cont = np.ones((2 * T, N))
    cont[0] = 0
    with built(content) as net, built(longer) as whole:
        give(whole, x=x, cont=cont)
        whole.forward()
        parts = []
        for start in (0, T):
            give(net, x=x[start : start + T], cont=cont[start : start + T])
            net.forward()
            parts.append(np.array(net.blobs["y"].data.host()))
        np.testing.assert_allclose(np.concatenate(parts), whole.blobs["y"].data.host(), rtol=1e-12)
        give(net, cont=np.r_[np.zeros((1, N)), np.ones((T - 1, N))], x=x[:T])
        net.forward()
        np.testing.assert_allclose(net.blobs["y"].data.host(), parts[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (layer("LSTM", "x cont", "y z"), ProtoError, "expected 2 or 3 bottoms"),
        (layer("RNN", "x cont h0", "y hT", "expose_hidden: true"), None, ""),
        (
            layer("LSTM", "x cont h0", "y hT cT", "expose_hidden: true"),
            ProtoError,
            "4 or 5 bottoms",
        ),
        (layer("LSTM", "x static"), ShapeError, r"expected x \(T,N,...\)"),
        (layer("LSTM", "x cont cont"), ShapeError, "a static input for each of 3 sequences"),
        (
            layer("RNN", "x cont static x", "y h", "expose_hidden: true"),
            ShapeError,
            "initial states",
        ),
        (layer("RNN", "x cont").replace(f"num_output: {D}", ""), ProtoError, "num_output is 0"),
    ],
)
def test_bottoms_that_do_not_fit(content: str, error: Any, message: str) -> None:
    whole = inputs(*SHAPES) + content
    if error is None:
        built(whole).close()
        return
    with pytest.raises(error, match=message):
        built(whole)


def test_a_number_of_steps_that_changes_is_refused() -> None:
    with built(inputs("x", "cont") + layer("LSTM", "x cont")) as net:
        for name, shape in (("x", (T + 1, N, X)), ("cont", (T + 1, N))):
            net.blobs[name].reshape(shape)
        with pytest.raises(ShapeError, match="expected 4 time steps of 5 numbers"):
            net.reshape()
        for name, shape in (("x", (T, 1, X)), ("cont", (T, 1))):
            net.blobs[name].reshape(shape)
        net.reshape()
        net.forward()
        assert net.blobs["y"].shape == (T, 1, D)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_a_net_learns_to_repeat_what_it_read(kind: str) -> None:
    """The output at each step is the symbol of the step before, which only the state has."""
    symbols, length, batch = 5, 8, 16
    content = "".join(
        input_layer(length, batch).replace('"data"', f'"{name}"')
        for name in ("symbol", "cont", "label")
    )
    content += f"""
        layer {{ name: "one" type: "Embed" bottom: "symbol" top: "one" embed_param {{
          input_dim: {symbols} num_output: 12 weight_filler {{ type: "uniform" min: -0.5 max: 0.5 }}
        }} }}
        layer {{ name: "rec" type: "{kind}" bottom: "one" bottom: "cont" top: "rec"
          recurrent_param {{ num_output: 24
            weight_filler {{ type: "uniform" min: -0.2 max: 0.2 }} }} }}
        layer {{ name: "out" type: "InnerProduct" bottom: "rec" top: "out" inner_product_param {{
          num_output: {symbols} axis: 2 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss"
          softmax_param {{ axis: 2 }} loss_param {{ ignore_label: -1 }} }}
        layer {{ name: "accuracy" type: "Accuracy" bottom: "out" bottom: "label" top: "accuracy"
          accuracy_param {{ axis: 2 ignore_label: -1 }} }}
    """
    rng = np.random.default_rng(8)
    with built(content, np.float32) as net:
        scores = []
        for _ in range(600):
            symbol = rng.integers(0, symbols, (length, batch))
            label = np.r_[np.full((1, batch), -1), symbol[:-1]]
            cont = np.r_[np.zeros((1, batch)), np.ones((length - 1, batch))]
            give(net, symbol=symbol, label=label, cont=cont)
            net.clear_param_diffs()
            net.forward()
            net.backward()
            for blob in net.params.learnable:
                blob.data.mutable_host()[...] -= 0.5 * blob.diff.host()
            scores.append(float(net.blobs["accuracy"].data.host()))
    assert scores[0] < 0.5
    assert np.mean(scores[-10:]) > 0.98
