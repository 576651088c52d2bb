"""Layers written in Python: they compute, learn, are saved, and may fail."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

import runtime.pycaffe as caffe
from prototxt_gen import proto, text
from prototxt_gen.errors import UnsupportedError
from runtime.backend.registry import create_backend
from runtime.net import Net
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import solver

MODULE = "tests.runtime.pycaffe.user_layers"
INPUT = """force_backward: true
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 3 dim: 2 } } }
"""


def python(name: str, cls: str, bottom: str = "data", param: str = "") -> str:
    below = f'bottom: "{bottom}"' if bottom else ""
    return f"""layer {{ name: "{name}" type: "Python" {below} top: "{name}" python_param {{
    module: "{MODULE}" layer: "{cls}" param_str: "{param}" }} }}
    """


def test_forward_backward_and_reshape(write: Write) -> None:
    layers = python("ten", "Multiply", param="10") + python("two", "Multiply", "ten", "2")
    net = caffe.Net(write(INPUT + layers), caffe.TRAIN)
    net.blobs["data"].data[...] = 8
    assert (net.forward()["two"] == 160).all()
    net.blobs["two"].diff[...] = 7
    assert (net.backward()["data"] == 140).all()
    net.blobs["data"].reshape(4, 4, 4, 4)
    net.forward()
    assert {blob.data.shape for blob in net.blobs.values()} == {(4, 4, 4, 4)}
    assert net.layers[1].type == "Python"
    assert net.layers[1].factor == 10  # the user's own object


def test_weights_are_learnt_saved_loaded_and_shared(write: Write) -> None:
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "target" top: "loss" }'
    data = """layer { name: "in" type: "DummyData" top: "data" top: "target"
      dummy_data_param { shape { dim: 3 dim: 2 } data_filler { value: 0 }
        data_filler { value: 4 } } }"""
    made = caffe.get_solver(write(solver(write(data + python("y", "Offset") + loss))))
    net = made.net
    assert net.params["y"][0].data.tolist() == [1, 1]
    made.step(1)
    assert net.params["y"][0].diff == pytest.approx([-0.3, -0.3])  # rate 0.1 times 1 - 4
    assert net.params["y"][0].data == pytest.approx([1.3, 1.3])
    net.save("w.caffemodel")
    net.params["y"][0].data[...] = -1
    net.copy_from("w.caffemodel")
    assert net.params["y"][0].data == pytest.approx([1.3, 1.3])
    other = caffe.Net(write(INPUT + python("y", "Offset")), caffe.TRAIN)
    other.share_with(net)
    net.params["y"][0].data[...] = 6
    assert other.layer_dict["y"].blobs[0].data.tolist() == [6, 6]


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_phase_and_a_top_without_axes(write: Write, phase: int) -> None:
    net = caffe.Net(write(python("phase", "Phase", "")), phase)
    result = net.forward()["phase"]
    assert (result.shape, int(result)) == ((), phase)


def test_a_net_within_a_layer(write: Write) -> None:
    inner = write(INPUT + python("out", "Multiply", param="3"))
    net = caffe.Net(write(INPUT + python("nested", "Nested", param=inner)), caffe.TEST)
    net.blobs["data"].reshape(5, 2)
    net.blobs["data"].data[...] = 2
    result = net.forward()["nested"]
    assert (result.shape, result.min(), result.max()) == ((5, 2), 6, 6)


def test_a_top_may_be_shaped_while_the_net_runs(write: Write) -> None:
    layers = python("some", "Growing") + python("twice", "Multiply", "some", "2")
    net = caffe.Net(write(INPUT + layers), caffe.TEST)
    for count in (3, 5, 2):
        net.blobs["data"].data[...] = count
        assert net.forward()["twice"].ravel().tolist() == [2 * i for i in range(count)]


def test_exceptions_of_layers_are_passed_on(write: Write) -> None:
    with pytest.raises(LookupError, match="in setup"):
        caffe.Net(write(INPUT + python("x", "Failing", param="setup")), caffe.TRAIN)
    net = caffe.Net(write(INPUT + python("x", "Failing", param="forward")), caffe.TRAIN)
    with pytest.raises(LookupError, match="in forward"):
        net.forward()


def test_other_constructors_and_other_classes(write: Write) -> None:
    net = caffe.Net(write(INPUT + python("name", "Careful", param="1")), caffe.TRAIN)
    assert net.layers[1].made_of == "name"
    net = caffe.Net(write(INPUT + python("four", "Free")), caffe.TRAIN)
    assert net.forward()["four"].tolist() == [4, 4]


@pytest.mark.parametrize("cls", ["Nothing", "np.nothing"])
def test_a_class_that_is_not_there(write: Write, cls: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"user_layers\.{cls} cannot be imported"):
        caffe.Net(write(INPUT + python("x", cls)), caffe.TRAIN)


def test_python_is_run_by_pycaffe_and_not_by_default() -> None:
    net: Any = text.parse(INPUT + python("x", "Multiply", param="1"), proto.NetParameter)
    with pytest.raises(UnsupportedError, match=r"which is off; .* --allow-python-layers"):
        Net(net, proto.TEST, create_backend("cpu"))


def test_a_base_class_by_hand() -> None:
    layer = caffe.Layer()
    assert (layer.type, layer.param_str) == ("Python", "")


def test_a_module_that_imports_caffe_without_the_alias(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_caffe.py").write_text("import caffe\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "caffe"]:
        monkeypatch.delitem(sys.modules, name)
    if importlib.util.find_spec("caffe") is not None:
        pytest.skip("another caffe is installed")
    source = (INPUT + python("x", "Layer")).replace(MODULE, "needs_caffe")
    with pytest.raises(UnsupportedError, match=r"call runtime\.pycaffe\.install_as"):
        caffe.Net(write(source), caffe.TEST)
