"""Names of pycaffe's modules that scripts use, and the name `caffe` itself."""

from __future__ import annotations

import html
import io as streams
import logging
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf.message import Message

import runtime.pycaffe as caffe
from prototxt_gen import proto, text
from prototxt_gen.errors import DataError, ProtoError
from runtime.pycaffe import _caffe, caffe_pb2, imagenet_mean, net_spec
from runtime.pycaffe import pycaffe as pycaffe_module
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import DEPLOY, TRAINABLE, solver


def test_assign_proto_takes_three_arguments() -> None:
    layer = caffe_pb2.LayerParameter()
    net_spec.assign_proto(layer, "name", "conv1")
    net_spec.assign_proto(layer, "bottom", "data")
    net_spec.assign_proto(layer, "bottom", ["extra", "more"])
    net_spec.assign_proto(layer, "param", [{"lr_mult": 1}, {"lr_mult": 2}])
    net_spec.assign_proto(
        layer,
        "convolution_param",
        {"kernel_size": 3, "weight_filler": {"type": "xavier"}, "engine": 1},
    )
    assert (layer.name, list(layer.bottom)) == ("conv1", ["data", "extra", "more"])
    assert [spec.lr_mult for spec in layer.param] == [1, 2]
    assert list(layer.convolution_param.kernel_size) == [3]
    assert layer.convolution_param.weight_filler.type == "xavier"
    with pytest.raises(AttributeError, match=r"assign_proto: LayerParameter.nam: no such field"):
        net_spec.assign_proto(layer, "nam", "x")
    with pytest.raises(ProtoError, match=r"LayerParameter.name: the value does not fit name"):
        net_spec.assign_proto(layer, "name", 3)


def test_param_name_dict() -> None:
    names = net_spec.param_name_dict()
    assert names["Convolution"] == "convolution"
    assert names["InnerProduct"] == "inner_product"
    assert names["LRN"] == "lrn"
    assert names["Transformation"] == "transform"
    assert all(hasattr(caffe_pb2.LayerParameter(), f"{name}_param") for name in names.values())


@pytest.mark.parametrize(
    ("name", "full_name"),
    [
        ("_LAYERPARAMETER", "caffe.LayerParameter"),
        ("_NETPARAMETER", "caffe.NetParameter"),
        ("_V1LAYERPARAMETER", "caffe.V1LayerParameter"),
        ("_V1LAYERPARAMETER_LAYERTYPE", "caffe.V1LayerParameter.LayerType"),
        ("_POOLINGPARAMETER_POOLMETHOD", "caffe.PoolingParameter.PoolMethod"),
        ("_SOLVERPARAMETER_SOLVERMODE", "caffe.SolverParameter.SolverMode"),
        ("_PHASE", "caffe.Phase"),
    ],
)
def test_descriptors_have_the_names_of_generated_modules(name: str, full_name: str) -> None:
    assert getattr(caffe_pb2, name).full_name == full_name


def test_messages_are_attributes_of_the_module() -> None:
    messages = [
        value
        for value in vars(caffe_pb2).values()
        if isinstance(value, type) and issubclass(value, Message)
    ]
    assert {cls.DESCRIPTOR.name for cls in messages} >= {"Datum", "NetParameter", "BlobProto"}
    assert caffe_pb2.V1LayerParameter.LayerType.Name(4) == "CONVOLUTION"
    assert caffe_pb2.PoolingParameter.PoolMethod.Value("AVE") == caffe_pb2.PoolingParameter.AVE
    assert not hasattr(caffe_pb2, "_NOTHING")


def test_libraries_under_the_name_of_io() -> None:
    assert caffe.io.np is np
    assert caffe.io.skimage.io.imread
    assert caffe.io.skimage.transform.resize is caffe.io.resize
    assert caffe.io.skimage.img_as_float
    assert caffe.io.zoom(np.ones((2, 2)), 2).shape == (4, 4)
    assert not hasattr(caffe.io, "nothing")


def test_the_modules_of_nets_and_solvers() -> None:
    assert caffe.pycaffe is pycaffe_module
    assert caffe._caffe is _caffe is pycaffe_module._caffe
    for name in ("Net", "SGDSolver", "AdamSolver", "NCCL", "Timer"):
        assert getattr(pycaffe_module, name) is getattr(caffe, name) is getattr(_caffe, name)
    for name in ("Layer", "set_mode_cpu", "layer_type_list", "get_solver", "__version__"):
        assert getattr(_caffe, name) is getattr(caffe, name)
    assert all(hasattr(_caffe, name) for name in _caffe.__all__)
    assert all(hasattr(pycaffe_module, name) for name in pycaffe_module.__all__)


def test_types_of_the_compiled_module(write: Write) -> None:
    net = caffe.Net(write(TRAINABLE), caffe.TEST)
    assert type(net.params["conv"]) is _caffe.BlobVec
    assert isinstance(net.blobs["data"], _caffe.Blob)
    assert isinstance(net.layers, _caffe.LayerVec)
    made = caffe.get_solver(write(solver(write(TRAINABLE))))
    assert isinstance(made, _caffe.Solver)
    assert isinstance(made.test_nets, _caffe.NetVec)


def test_private_names_of_a_net(write: Write) -> None:
    net = caffe.Net(
        write(
            """layer { name: "d" type: "MemoryData" top: "data" top: "label"
            memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }"""
        ),
        caffe.TEST,
    )
    images = np.arange(6, dtype=np.float32).reshape(2, 1, 1, 3)
    net._set_input_arrays(images, np.zeros((2, 1, 1, 1), np.float32))
    net._forward(0, len(net.layers) - 1)
    assert np.array_equal(net.blobs["data"].data, images)
    parts = list(net._batch({"data": np.ones((3, 1, 1, 3))}))
    assert [part["data"][:, 0, 0, 0].tolist() for part in parts] == [[1, 1], [1, 0]]


class Named(streams.BytesIO):
    name = "picture.png"


def test_images_of_file_objects(tmp_path: Path) -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    data = (tmp_path / "a.png").read_bytes()
    expected = caffe.io.load_image(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as stream:
        assert np.array_equal(caffe.io.load_image(stream), expected)
    assert np.array_equal(caffe.io.load_image(streams.BytesIO(data)), expected)
    assert caffe.io.load_image(streams.BytesIO(data), color=False).shape == (2, 3, 1)
    closed = Named(data)
    closed.close()
    unreadable = (tmp_path / "a.png").open("wb")
    for stream, words in (
        (Named(b"no"), "picture.png: the image does not decode"),
        (streams.StringIO("text"), "image: the file gives str; expected bytes; open it in binary"),
        (closed, "picture.png: cannot be read: I/O operation on closed file"),
        (unreadable, "a.png: cannot be read: read"),
    ):
        with pytest.raises(DataError, match=words):
            caffe.io.load_image(stream)  # type: ignore[arg-type]
    unreadable.close()


def test_the_mean_of_ilsvrc() -> None:
    assert caffe.__file__ is not None
    for folder in (caffe.__path__[0], str(Path(caffe.__file__).parent)):
        path = os.path.join(folder, "imagenet", "ilsvrc_2012_mean.npy")  # noqa: PTH118 as scripts
        mean = np.load(path)
        assert mean.shape == (3, 256, 256)
        assert mean.mean(1).mean(1) == pytest.approx([104.00698793, 116.66876762, 122.67891434])
    assert imagenet_mean.MEAN_FILE.read_bytes() == imagenet_mean.mean_file_bytes()
    transformer = caffe.io.Transformer({"data": (1, 3, 227, 227)})
    transformer.set_mean("data", mean)
    assert transformer.mean["data"].shape == (3, 227, 227)


def test_a_graph_of_pydot(monkeypatch: pytest.MonkeyPatch) -> None:
    net = text.parse(TRAINABLE, proto.NetParameter)
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(ImportError, match=r"get_pydot_graph: pydot cannot be imported .* pip inst"):
        caffe.draw.get_pydot_graph(net, "LR")

    class Edge:
        def __init__(self, label: str) -> None:
            self.attributes = {"label": label, "dir": "both"}

        def get_attributes(self) -> dict[str, str]:
            return self.attributes

    class Graph:
        def __init__(self, source: str) -> None:
            self.source, self.edges = source, [Edge("3")]

        def get_edges(self) -> list[Edge]:
            return self.edges

    stand_in = types.ModuleType("pydot")
    stand_in.graph_from_dot_data = lambda source: [Graph(source)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pydot", stand_in)
    graph = caffe.draw.get_pydot_graph(net, "TB", phase=caffe.TEST)
    assert graph.source == caffe.draw.draw_net(net, "TB", "dot", caffe.TEST).decode()
    assert graph.edges[0].attributes == {"label": "3", "dir": "both"}
    graph = caffe.draw.get_pydot_graph(net, "TB", label_edges=False)
    assert graph.edges[0].attributes == {"dir": "both"}
    with pytest.raises(ProtoError, match="rankdir"):
        caffe.draw.get_pydot_graph(net, "UP")


def test_labels_and_colours_of_drawings() -> None:
    assert caffe.draw.get_pooling_types_dict() == {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}
    assert caffe.draw.choose_color_by_layertype("Convolution") == "#FF5050"
    assert caffe.draw.choose_color_by_layertype("Softmax") == "#6495ED"


def test_a_graph_of_the_real_pydot() -> None:
    pydot = pytest.importorskip("pydot")
    net = text.parse(TRAINABLE, proto.NetParameter)
    graph = caffe.draw.get_pydot_graph(net, "LR")
    assert isinstance(graph, pydot.Dot)
    assert len(graph.get_nodes()) == 10
    assert sorted(filter(None, (edge.get_label() for edge in graph.get_edges()))) == ['"3"', '"7"']
    graph = caffe.draw.get_pydot_graph(net, "LR", label_edges=False)
    assert not any(edge.get_label() for edge in graph.get_edges())


def test_nets_blobs_and_solvers_show_layers_and_shapes(write: Write) -> None:
    made = caffe.get_solver(write(solver(write(TRAINABLE.replace('"conv"', '"<c>"')))))
    lines = repr(made.net).splitlines()
    assert lines[0] == "Net 'small' (TRAIN): 5 layers, 5 blobs, 694 parameters"
    assert re.split(r"  +", lines[3]) == ["<c>", "Convolution", "data", "<c> 4x3x5x6", "3x2x3x3, 3"]
    page = made.net._repr_html_()
    assert page.count("<tr>") == 6
    assert "<td>&lt;c&gt; 4x3x5x6</td>" in page
    assert "<c>" not in page
    head = "SGD solver: iteration 0 of 6, learning rate 0, 0 test nets"
    assert repr(made).splitlines() == [head, *lines]
    assert made._repr_html_() == f"<p>{html.escape(head)}</p>{page}"
    made.step(1)
    assert "iteration 1 of 6, learning rate 0.1" in repr(made)
    blob = made.net.blobs["<c>"]
    assert repr(blob) == "Blob('<c>', (4, 3, 5, 6))"
    assert blob._repr_html_() == "<p>Blob <b>&lt;c&gt;</b>: 4 x 3 x 5 x 6</p>"
    assert made.net.blobs["loss"]._repr_html_() == "<p>Blob <b>loss</b>: scalar</p>"
    assert "Blob" in repr(made.net.params["ip"])
    assert repr(caffe.Net(write(DEPLOY), caffe.TEST)).startswith("Net 'deploy' (TEST): 3 layers")


@pytest.mark.parametrize("make", [caffe.Classifier, caffe.Detector])
def test_a_warning_for_layers_without_weights(
    write: Write, caplog: pytest.LogCaptureFixture, make: Any
) -> None:
    caplog.set_level(logging.WARNING)
    net = caffe.Net(write(DEPLOY), caffe.TEST)
    net.save("whole.caffemodel")
    make(write(DEPLOY), "whole.caffemodel")
    assert not caplog.text
    more = DEPLOY.replace('bottom: "score"', 'bottom: "score2"') + (
        'layer { name: "ip2" type: "InnerProduct" bottom: "score" top: "score2" '
        "inner_product_param { num_output: 5 } }"
    )
    head, tail = more.split('layer { name: "prob"')
    end, extra = tail.split('layer { name: "ip2"')
    made = make(
        write(f'{head}layer {{ name: "ip2"{extra}layer {{ name: "prob"{end}'), "whole.caffemodel"
    )
    name = make.__name__
    assert (
        f"{name}: whole.caffemodel has no weights for 1 of the layers of net 'deploy' (ip2)"
        in caplog.text
    )
    caplog.clear()
    made.copy_from("whole.caffemodel")
    assert "(ip2)" in caplog.text
    caplog.clear()
    make(write(DEPLOY), None)
    assert f"{name}: no weights were given for net 'deploy'" in caplog.text


USE = """
import caffe, caffe.io, caffe.draw, caffe.pycaffe, caffe._caffe
from caffe import layers as L, params as P
from caffe._caffe import layer_type_list
from caffe.pycaffe import *
from caffe.proto import caffe_pb2
import runtime.pycaffe as ours
assert caffe is ours and caffe.io is ours.io and caffe_pb2 is ours.caffe_pb2, caffe
assert Net is ours.Net and caffe._caffe.Net is Net
print("the same")
"""


def run(script: str, path: Path) -> str:
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(root)])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=path
    )
    return done.stdout.strip() + done.stderr.strip()


@pytest.mark.parametrize("file", ["caffe/__init__.py", "caffe.py"])
def test_a_package_named_caffe_that_installs_this_one(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("import runtime.pycaffe as p\np.install_as_caffe()\n")
    script = USE
    if file != "caffe.py":
        (tmp_path / "caffe/mine.py").write_text("from caffe import Layer\nclass Mine(Layer): ...\n")
        script += "import caffe.mine\nfrom caffe.mine import Mine\nassert caffe.mine.Mine is Mine\n"
    assert run(script, tmp_path) == "the same"


def test_a_tree_like_caffes(tmp_path: Path) -> None:
    assert caffe.write_caffe_root(tmp_path) == tmp_path / "python"
    caffe.write_caffe_root(tmp_path)
    script = f"""
import sys
caffe_root = {f"{tmp_path}/"!r}
sys.path.insert(0, caffe_root + "python")
import numpy as np
{USE}
mu = np.load(caffe_root + "python/caffe/imagenet/ilsvrc_2012_mean.npy").mean(1).mean(1)
assert [round(m) for m in mu] == [104, 117, 123]
sys.path.append(caffe_root + "python/caffe/proto")
import caffe_pb2
assert caffe_pb2.NetParameter is caffe.proto.caffe_pb2.NetParameter
"""
    assert run(script, tmp_path) == "the same"
    (tmp_path / "python/caffe/__init__.py").write_text("other = 1\n")
    with pytest.raises(ProtoError, match="another package caffe is there; expected none"):
        caffe.write_caffe_root(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ProtoError, match="cannot be made: Not a directory"):
        caffe.write_caffe_root(tmp_path / "file")
