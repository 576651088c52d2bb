"""Net: construction, properties, forward and backward passes, weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime.pycaffe as caffe
from prototxt_gen.errors import DeviceError, ProtoError, ShapeError, VerydeepError
from runtime.pycaffe.session import SESSION
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import DEPLOY, TRAINABLE


@pytest.fixture
def net(write: Write) -> caffe.Net:
    return caffe.Net(write(TRAINABLE), caffe.TRAIN)


STAGED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }
layer { name: "train" type: "Power" bottom: "data" top: "train" include { phase: TRAIN } }
layer { name: "deep" type: "Power" bottom: "data" top: "deep" include { min_level: 2 } }
layer { name: "a" type: "Power" bottom: "data" top: "a" include { stage: "A" } }
layer { name: "ab" type: "Power" bottom: "data" top: "ab" include { stage: "A" stage: "B" } }
layer { name: "end" type: "Power" bottom: "data" top: "end" }
"""


@pytest.mark.parametrize(
    ("args", "kwargs", "outputs"),
    [
        ((caffe.TRAIN,), {}, ["end", "train"]),
        ((caffe.TEST,), {}, ["end"]),
        ((caffe.TEST, 2), {}, ["deep", "end"]),
        ((), {"phase": 1, "level": 3, "stages": ["A"]}, ["a", "deep", "end"]),
        ((caffe.TEST,), {"stages": ["A", "B"]}, ["a", "ab", "end"]),
        ((caffe.TEST, 0, ("B", "A"), None), {}, ["a", "ab", "end"]),
    ],
)
def test_phase_level_and_stages(
    write: Write, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[str]
) -> None:
    assert caffe.Net(write(STAGED), *args, **kwargs).outputs == outputs


def test_the_legacy_form_loads_weights_with_a_warning(
    write: Write, net: caffe.Net, caplog: pytest.LogCaptureFixture
) -> None:
    net.save("w.caffemodel")
    again = caffe.Net(write(TRAINABLE), "w.caffemodel", caffe.TRAIN)
    assert "use Net(network_file, phase, weights=weights_file)" in caplog.text
    named = caffe.Net(write(TRAINABLE), caffe.TRAIN, weights="w.caffemodel")
    for other in (again, named):
        for name, blobs in net.params.items():
            for mine, theirs in zip(blobs, other.params[name]):
                assert np.array_equal(mine.data, theirs.data)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "words"),
    [
        ((), {}, TypeError, "missing 1 required positional argument: 'phase'"),
        (("TEST",), {}, TypeError, r"phase is 'TEST'; expected TRAIN \(0\)"),
        ((7,), {}, TypeError, r"phase is 7; expected TRAIN \(0\) or TEST \(1\)"),
        ((0,), {"stages": "ab"}, TypeError, r"stages is the string 'ab'; .* stages=\['ab'\]"),
        ((0,), {"color": 1}, TypeError, "unexpected keyword argument 'color'"),
        ((0,), {"weights": "no"}, RuntimeError, "Could not open file no: No such file"),
        (("no", 0), {}, RuntimeError, "Could not open file no: No such file"),
    ],
)
def test_arguments_that_fit_no_form(
    write: Write, args: Any, kwargs: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        caffe.Net(write(DEPLOY), *args, **kwargs)
    assert isinstance(caught.value, VerydeepError)


def test_a_missing_net(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Could not open file .*/none.prototxt: No such file"):
        caffe.Net(tmp_path / "none.prototxt", caffe.TEST)


def test_properties_of_a_net(net: caffe.Net) -> None:
    assert net._layer_names == ["data", "conv", "relu", "ip", "loss"]
    assert list(net.blobs) == ["data", "label", "conv", "score", "loss"]
    assert list(net.params) == ["conv", "ip"]
    assert [blob.data.shape for blob in net.params["conv"]] == [(3, 2, 3, 3), (3,)]
    assert (net.inputs, net.outputs) == ([], ["loss"])
    assert (net._inputs, net._outputs) == ([], [4])
    assert list(net.top_names.items()) == [
        ("data", ["data", "label"]),
        ("conv", ["conv"]),
        ("relu", ["conv"]),
        ("ip", ["score"]),
        ("loss", ["loss"]),
    ]
    assert list(net.bottom_names.values()) == [[], ["data"], ["conv"], ["conv"], ["score", "label"]]
    assert (net._top_ids(0), net._bottom_ids(4)) == ([0, 1], [3, 1])
    assert list(net.blob_loss_weights.values()) == net._blob_loss_weights == [0, 0, 0, 0, 1]
    assert net.layer_dict["conv"] is net.layers[1]
    assert [layer.type for layer in net.layers] == [
        "DummyData",
        "Convolution",
        "ReLU",
        "InnerProduct",
        "SoftmaxWithLoss",
    ]
    assert isinstance(net.layers[1], caffe.Layer)
    assert len(net.layers[1].blobs) == 2
    blob = net.blobs["data"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (4, 2, 5, 6, 240)
    assert (blob.shape[0], repr(blob)) == (4, "Blob('data', (4, 2, 5, 6))")


def test_arrays_are_the_blobs_own(net: caffe.Net) -> None:
    weight = net.params["ip"][0].data
    net.params["ip"][0].data[...] = 0
    net.params["ip"][1].data[...] = np.arange(7)
    assert not weight.any()
    scores = net.forward(end="ip")["score"]
    assert np.array_equal(scores, np.tile(np.arange(7.0), (4, 1)))
    net.params["ip"][1].data[:] += 1
    net.forward()
    assert np.array_equal(scores[0], np.arange(1.0, 8.0))


def test_arrays_outlive_the_net(write: Write) -> None:
    net = caffe.Net(write(TRAINABLE), caffe.TRAIN)
    net.forward()
    data, loss = net.params["conv"][0].data, net.blobs["loss"]
    kept, value = data.copy(), float(loss.data)
    net.close()
    del net
    assert np.array_equal(data, kept)
    assert float(loss.data) == value > 0


def test_a_part_of_the_net_runs_alone(net: caffe.Net) -> None:
    rng = np.random.default_rng(1)
    conv = net.blobs["conv"].data
    conv[...] = rng.normal(size=conv.shape)
    weight, bias = (blob.data for blob in net.params["ip"])
    result = net.forward(blobs=["conv"], start="ip", end="ip")
    assert sorted(result) == ["conv", "score"]
    flat = conv.reshape(4, -1)
    np.testing.assert_allclose(result["score"], flat @ weight.T + bias, rtol=1e-4, atol=1e-5)
    dy = net.blobs["score"].diff
    dy[...] = rng.normal(size=dy.shape)
    result = net.backward(diffs=["score"], start="ip", end="ip")
    assert sorted(result) == ["conv", "score"]
    np.testing.assert_allclose(result["conv"].reshape(4, -1), dy @ weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.params["ip"][0].diff, dy.T @ flat, rtol=1e-4, atol=1e-4)


def test_a_data_layer_moves_on_only_when_it_runs(net: caffe.Net) -> None:
    clock = net.core.context
    net.forward(end="data")
    assert clock.pass_number == 1
    net.forward(start="conv")
    assert clock.pass_number == 1
    net.forward()
    assert clock.pass_number == 2


def test_inputs_and_top_diffs_by_name(write: Write) -> None:
    net = caffe.Net(write("force_backward: true" + DEPLOY), caffe.TEST)
    rng = np.random.default_rng(2)
    x, dy = rng.normal(size=(4, 3, 6, 8)), rng.normal(size=(4, 5))
    y = net.forward(data=x)["prob"].copy()
    weight, bias = (blob.data for blob in net.params["ip"])
    e = np.exp(x.reshape(4, -1) @ weight.T + bias)
    np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=1e-4)
    dx = net.backward(prob=dy)["data"]
    dscore = (dy - (dy * y).sum(axis=1, keepdims=True)) * y
    np.testing.assert_allclose(dx.reshape(4, -1), dscore @ weight, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda net: net.forward(label=np.zeros(4)),
            RuntimeError,
            "Input blob arguments do not match the net's; expected data, got label",
        ),
        (
            lambda net: net.forward(data=np.zeros((3, 3, 6, 8))),
            ValueError,
            r"'data' is not batch sized; expected \(4,\) along the first axis, got shape \(3, 3",
        ),
        (
            lambda net: net.forward(data=np.zeros((4, 2, 6, 8))),
            ValueError,
            r"expected numbers of shape \(4, 3, 6, 8\), got float64 of shape \(4, 2, 6, 8\)",
        ),
        (
            lambda net: net.backward(data=np.zeros(4)),
            RuntimeError,
            "Top diff arguments do not match the net's; expected prob, got data",
        ),
        (lambda net: net.forward(start="x"), RuntimeError, "no layer 'x'; expected one of in, ip"),
        (lambda net: net.forward(blobs=["x"]), RuntimeError, "no blob 'x'; expected one of data"),
        (
            lambda net: net.set_input_arrays(np.zeros(1), np.zeros(1)),
            RuntimeError,
            "only be called if the first layer is a MemoryData layer; got Input",
        ),
        (lambda net: net.blobs["data"].reshape((1, 2)), ShapeError, r"reshape\(\*shape\)"),
    ],
)
def test_calls_that_the_net_does_not_allow(
    write: Write, call: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(caffe.Net(write(DEPLOY), caffe.TEST))


def test_reshape(write: Write) -> None:
    net = caffe.Net(write(DEPLOY), caffe.TEST)
    net.blobs["data"].reshape(2, 3, 6, 8)
    assert net.blobs["prob"].shape == (4, 5)
    net.reshape()
    assert net.blobs["prob"].shape == (2, 5)
    net.blobs["data"].reshape(1, 3, 6, 8)
    net.blobs["data"].data[...] = 1
    assert net.forward()["prob"].shape == (1, 5)
    net.blobs["data"].reshape(1, 3, 7, 7)
    with pytest.raises(ShapeError, match="expected 144 inputs"):
        net.reshape()


def test_clear_param_diffs(net: caffe.Net) -> None:
    net.forward()
    net.backward()
    once = net.params["conv"][0].diff.copy()
    net.backward()
    np.testing.assert_allclose(net.params["conv"][0].diff, 2 * once, rtol=1e-5, atol=1e-7)
    assert once.any()
    net.clear_param_diffs()
    assert not any(blob.diff.any() for blobs in net.params.values() for blob in blobs)


def test_hooks_see_each_layer(net: caffe.Net) -> None:
    seen: list[tuple[str, int]] = []
    net.before_forward(lambda i: seen.append(("before", i)))
    net.after_forward(lambda i: seen.append(("after", i)))
    net.before_backward(lambda i: seen.append(("before back", i)))
    net.after_backward(lambda i: seen.append(("after back", i)))
    net.forward(start="ip")
    net.backward(end="ip")
    assert seen == [
        *[(word, i) for i in (3, 4) for word in ("before", "after")],
        *[(word, i) for i in (4, 3) for word in ("before back", "after back")],
    ]


def test_save_forms_and_share(write: Write, net: caffe.Net) -> None:
    net.save("weights.h5")  # a .caffemodel under any name, as pycaffe writes it
    net.save_hdf5("weights.hdf5")
    assert Path("weights.hdf5").read_bytes()[:4] == b"\x89HDF"
    assert Path("weights.h5").read_bytes()[:4] != b"\x89HDF"
    other = caffe.Net(write(TRAINABLE), caffe.TRAIN)
    mine, theirs = net.params["conv"][0], other.params["conv"][0]
    for load in (
        lambda: other.copy_from("weights.h5"),
        lambda: other.load_hdf5("weights.hdf5"),
        lambda: other.share_with(net),
    ):
        theirs.data[...] = 0
        load()
        assert np.array_equal(mine.data, theirs.data)
        assert mine.data.any()
    mine.data[0] = 5
    assert (theirs.data[0] == 5).all()
    with pytest.raises(RuntimeError, match="Could not open file nowhere"):
        net.copy_from("nowhere")


def test_weights_cannot_be_shared_across_devices(write: Write, net: caffe.Net) -> None:
    SESSION._backends.clear()
    other = caffe.Net(write(TRAINABLE), caffe.TRAIN)
    with pytest.raises(DeviceError, match="cannot share weights with a net on another device"):
        other.share_with(net)


def test_memory_data(write: Write) -> None:
    net = caffe.Net(
        write(
            """layer { name: "d" type: "MemoryData" top: "data" top: "label"
            memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } }"""
        ),
        caffe.TEST,
    )
    images = np.arange(24, dtype=np.float32).reshape(4, 1, 2, 3)
    for labels in (np.arange(4.0), np.arange(4.0).reshape(4, 1, 1, 1)):
        net.set_input_arrays(images, labels)
        for first in (0, 2, 0):
            result = net.forward()
            assert np.array_equal(result["data"], images[first : first + 2])
            assert result["label"].tolist() == [first, first + 1]
    with pytest.raises(ValueError, match=r"images of shape \(3, 1, 2, 3\); expected .* of 2"):
        net.set_input_arrays(images[:3], np.zeros(3))


def test_an_error_names_the_layer_and_a_similar_blob(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with pytest.raises(ProtoError, match=r"layer 'ip': unknown bottom blob 'dat'.*mean 'data'"):
        caffe.Net(write(DEPLOY.replace('bottom: "data"', 'bottom: "dat"')), caffe.TEST)
