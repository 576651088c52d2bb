"""Nets written in Python, as users of pycaffe write them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.netspec import Function, NetSpec, Top, to_proto
from prototxt_gen.netspec import layers as L  # noqa: N812 -- the name in every user's script
from prototxt_gen.netspec import params as P  # noqa: N812 -- the name in every user's script
from prototxt_gen.text import parse, to_text


def same(net: Any, text: str) -> None:
    assert to_text(net) == to_text(parse(text, proto.NetParameter))


def data() -> Top:
    top = L.DummyData(shape={"dim": [2, 1, 28, 28]})
    assert isinstance(top, Top)
    return top


DATA = 'layer { type: "DummyData" name: "%s" top: "%s" dummy_data_param { shape { dim: [2, 1, 28, '
DATA += "28] } } }"


def test_net_with_assigned_names() -> None:
    n = NetSpec()
    n.data, n.label = L.Data(
        ntop=2,
        batch_size=64,
        source="db",
        backend=P.Data.LMDB,
        transform_param={"scale": 0.5, "mean_value": [1, 2, 3]},
        include={"phase": proto.TRAIN},
    )
    n.conv1 = L.Convolution(
        n.data,
        kernel_size=5,
        num_output=20,
        weight_filler={"type": "xavier"},
        param=[{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2}],
    )
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.relu1 = L.ReLU(n.pool1, in_place=True)
    n.ip = L.InnerProduct(n.relu1, num_output=10)
    n.loss = L.SoftmaxWithLoss(n.ip, n.label, loss_weight=0.5)
    same(
        n.to_proto(),
        """layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
          transform_param { scale: 0.5 mean_value: [1, 2, 3] }
          data_param { source: "db" batch_size: 64 backend: LMDB } }
        layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
          param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 }
          convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } } }
        layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
          pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
        layer { name: "relu1" type: "ReLU" bottom: "pool1" top: "pool1" }
        layer { name: "ip" type: "InnerProduct" bottom: "pool1" top: "ip"
          inner_product_param { num_output: 10 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
          loss_weight: 0.5 }""",
    )


def test_what_is_not_assigned_is_named_by_type_and_number() -> None:
    x = data()
    first = L.InnerProduct(x, num_output=1)
    second = L.InnerProduct(first, num_output=2)
    expected = (
        DATA % ("DummyData1", "DummyData1")
        + """layer { name: "InnerProduct1" type: "InnerProduct" bottom: "DummyData1"
          top: "InnerProduct1" inner_product_param { num_output: 1 } }
        layer { name: "InnerProduct2" type: "InnerProduct" bottom: "InnerProduct1"
          top: "InnerProduct2" inner_product_param { num_output: 2 } }"""
    )
    same(to_proto(second), expected)
    same(second.to_proto(), expected)
    # The inputs of a layer come once, before it, in any order of requests.
    same(to_proto(second, first, x), expected)


def test_partly_assigned() -> None:
    n = NetSpec()
    n.out = L.ReLU(L.ReLU(data()))
    n.again = L.ReLU(n.out)
    names = [(layer.name, *layer.bottom, *layer.top) for layer in n.to_proto().layer]
    assert names == [
        ("DummyData1", "DummyData1"),
        ("ReLU1", "DummyData1", "ReLU1"),
        ("out", "ReLU1", "out"),
        ("again", "out", "again"),
    ]


def test_several_tops_of_which_some_are_named() -> None:
    n = NetSpec()
    first, n.second = L.Slice(data(), ntop=2, slice_point=14, axis=2)
    n.sum = L.Eltwise(first, n.second, operation=P.Eltwise.MAX)
    _, slice_layer, eltwise = n.to_proto().layer
    assert list(slice_layer.top) == ["Slice1", "second"]
    assert slice_layer.name == "Slice1"
    assert list(eltwise.bottom) == ["Slice1", "second"]
    assert first.fn is n.second.fn
    assert (first.n, n.second.n) == (0, 1)


def test_layers_without_tops() -> None:
    n = NetSpec()
    n.data = data()
    n.quiet = L.Silence(n.data, ntop=0)
    silence = L.Silence(n.data, ntop=0)
    assert isinstance(silence, Function)
    assert silence.fn is silence
    same(
        n.to_proto(),
        DATA % ("data", "data") + 'layer { name: "quiet" type: "Silence" bottom: "data" }',
    )
    assert to_proto(silence).layer[1].name == "Silence1"


def test_items_are_attributes() -> None:
    n = NetSpec()
    n["a/b"] = data()
    n["a/c"] = L.ReLU(n["a/b"])
    n.d = L.ReLU(n["a/c"])
    del n["a/c"]
    assert [layer.name for layer in n.to_proto().layer] == ["a/b", "ReLU1", "d"]
    del n.d
    assert list(n.tops) == ["a/b"]
    with pytest.raises(AttributeError, match="the NetSpec has no top 'd'"):
        _ = n.d
    with pytest.raises(AttributeError, match="the NetSpec has no top 'd'"):
        del n.d
    with pytest.raises(KeyError):
        _ = n["d"]
    assert list(copy.copy(n).tops) == ["a/b"]


def test_name_and_other_fields_of_the_layer() -> None:
    top = L.Convolution(data(), name="mine", num_output=1, phase="TEST", propagate_down=[False])
    layer = top.to_proto().layer[1]
    assert (layer.name, list(layer.top), layer.phase) == ("mine", ["Convolution1"], proto.TEST)
    assert list(layer.propagate_down) == [False]


def test_values_of_every_kind() -> None:
    top = L.Convolution(
        data(),
        kernel_size=(3, 5),
        pad=np.array([1, 2]),
        stride=np.int64(2),
        num_output=np.int32(4),
        weight_filler=proto.FillerParameter(type="msra"),
        engine="CAFFE",
        loss_weight=[],
        param={},
    )
    layer = top.to_proto().layer[1]
    assert to_text(layer.convolution_param) == (
        "num_output: 4\npad: 1\npad: 2\nkernel_size: 3\nkernel_size: 5\nstride: 2\n"
        'weight_filler {\n  type: "msra"\n}\nengine: CAFFE\n'
    )
    assert len(layer.loss_weight) == 0
    assert len(layer.param) == 1


def test_a_type_reuses_its_message_by_name_only() -> None:
    layer = L.Deconvolution(data(), convolution_param={"num_output": 3}).to_proto().layer[1]
    assert layer.convolution_param.num_output == 3
    layer = L.Python(data(), module="m", layer="C", param_str="'x'").to_proto().layer[1]
    assert (layer.python_param.module, layer.python_param.layer) == ("m", "C")


def test_types_of_the_users_own() -> None:
    assert L.MyLayer(data()).to_proto().layer[1].type == "MyLayer"
    assert not hasattr(L, "__wrapped__")
    assert not hasattr(P, "__wrapped__")


def test_parameters_are_not_consumed() -> None:
    common = {"num_output": 2, "ntop": 1}
    first, second = (Function("InnerProduct", (data(),), common).tops[0] for _ in range(2))
    assert to_text(first.to_proto()) == to_text(first.to_proto()) == to_text(second.to_proto())
    assert common == {"num_output": 2, "ntop": 1}


def test_branches_come_in_the_order_they_are_read() -> None:
    x = data()
    left, right = L.Sigmoid(L.AbsVal(x)), L.TanH(x)
    types = [layer.type for layer in L.Eltwise(left, right).to_proto().layer]
    assert types == ["DummyData", "AbsVal", "Sigmoid", "TanH", "Eltwise"]


def test_deep_nets() -> None:
    top = data()
    for _ in range(3000):
        top = L.ReLU(top, in_place=True)
    net = top.to_proto()
    assert len(net.layer) == 3001
    assert {*net.layer[-1].top} == {"DummyData1"}


@pytest.mark.parametrize(
    ("top", "complaint"),
    [
        (
            lambda: L.Convolution(data(), kernal_size=3),
            r"layer 'Convolution1' \(Convolution\), kernal_size: unknown parameter; expected a "
            r"field of ConvolutionParameter such as kernel_size or kernel_w or kernel_h, got "
            r"'kernal_size'; correct it, or give it within its message: convolution_param=dict",
        ),
        (
            lambda: L.Deconvolution(data(), kernel_size=3),
            r"layer 'Deconvolution1' \(Deconvolution\), kernel_size: unknown parameter; expected "
            "a field of LayerParameter, got 'kernel_size'",
        ),
        (
            lambda: L.ReLU(data(), rulu_param={}),
            "expected a field of LayerParameter such as relu_param",
        ),
        (
            lambda: L.InnerProduct(data(), weight_filler={"typ": "xavier"}),
            r"\(InnerProduct\), weight_filler.typ: unknown parameter; expected a field of "
            "FillerParameter such as type",
        ),
        (
            lambda: L.Pooling(data(), pool="AVG"),
            "the value does not fit pool; expected one of MAX, AVE, STOCHASTIC, got 'AVG'; correct",
        ),
        (lambda: L.Pooling(data(), pool=9), "does not fit pool; expected one of MAX, AVE"),
        (
            lambda: L.InnerProduct(data(), num_output="ten"),
            "the value does not fit num_output; expected uint32, got 'ten'",
        ),
        (lambda: L.InnerProduct(data(), num_output=-1), "expected uint32, got -1"),
        (lambda: L.InnerProduct(data(), num_output=[1, 2]), r"expected uint32, got \[1, 2\]"),
        (
            lambda: L.InnerProduct(data(), weight_filler="xavier"),
            "expected a dict of the fields of FillerParameter, got 'xavier'",
        ),
    ],
)
def test_errors_name_the_layer_and_what_fits(top: Any, complaint: str) -> None:
    with pytest.raises(ProtoError, match=complaint):
        top().to_proto()


def test_inputs_are_tops() -> None:
    tops = L.DummyData(ntop=2)
    with pytest.raises(
        TypeError, match=r"^Silence input 0 is not a Top \(type is <class 'tuple'>\)$"
    ):
        L.Silence(tops, ntop=0)


def test_what_is_assigned_is_a_top() -> None:
    n = NetSpec()
    n.both = L.DummyData(ntop=2)
    with pytest.raises(ProtoError, match=r"NetSpec\.both: not a layer; expected a top, got <class"):
        n.to_proto()


def test_unknown_constants() -> None:
    assert P.LRN.WITHIN_CHANNEL == 1
    with pytest.raises(
        AttributeError, match=r"P\.Pooling\.AVG: no such constant; expected an enum"
    ):
        _ = P.Pooling.AVG
    with pytest.raises(AttributeError, match="got 'MAX' of PoolParameter"):
        _ = P.Pool.MAX


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"weight_filler": {"std": 10**400}}, "the value does not fit std; expected float, got"),
        ({"num_output": 10**5000}, "the value does not fit num_output; expected uint32, got"),
        (
            {"ntop": -1},
            "Convolution, ntop: out of range; expected a number of tops from 0 to 65536",
        ),
        ({"ntop": "two"}, "Convolution, ntop: out of range; .* got 'two'; correct it"),
        ({"ntop": 10**10}, "Convolution, ntop: out of range"),
    ],
)
def test_numbers_without_end(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ProtoError, match=complaint):
        L.Convolution(L.Input(), **given).to_proto()
