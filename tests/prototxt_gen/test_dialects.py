"""The table of dialects: what each Caffe would refuse, and what errors name."""

from __future__ import annotations

import pytest

from prototxt_gen import proto, text
from prototxt_gen.dialects import (
    BVLC_TYPES,
    DIALECTS,
    dialects_of_field,
    dialects_of_type,
    refusals,
    titles,
)
from prototxt_gen.errors import ProtoError, UnsupportedError
from runtime.layers.factory import layer_type_list, require_types

NET = """
layer { name: "p" type: "Pooling" pooling_param { kernel_size: 2 ceil_mode: false } }
layer { name: "x" type: "Permute" }
layer { name: "y" type: "PriorBox" }
layer { name: "z" type: "PriorBox" }
layer { name: "u" type: "NoSuchLayer" }
"""

OF_SSD = "the layer type is unknown; it belongs to SSD, NVIDIA Caffe and Intel Caffe"


def net(content: str = NET) -> proto.Message:
    return text.parse(content, proto.NetParameter, "n")


def test_bvlc_refuses_types_and_fields_of_others() -> None:
    assert refusals(net(), "bvlc") == [
        "layer 'p' (Pooling): PoolingParameter has no field 'ceil_mode'; it belongs to SENet",
        f"layer 'x' (Permute): {OF_SSD}",
        f"layer 'y' (PriorBox): {OF_SSD}",
        f"layer 'z' (PriorBox): {OF_SSD}",
        "layer 'u' (NoSuchLayer): the layer type is unknown; no dialect in the table has it",
    ]


@pytest.mark.parametrize(
    ("dialect", "names"), [("ssd", "pu"), ("senet", "xyzu"), ("yolo", "pxyzu")]
)
def test_a_dialect_takes_its_own(dialect: str, names: str) -> None:
    assert [sentence[7] for sentence in refusals(net(), dialect)] == list(names)


def test_a_field_of_its_default_value_is_refused_too() -> None:
    given = net('layer { name: "p" type: "Pooling" pooling_param { ceil_mode: true } }')
    assert len(refusals(given, "bvlc")) == 1
    assert not refusals(net('layer { type: "Pooling" pooling_param { kernel_size: 2 } }'), "bvlc")


def test_every_supported_type_has_a_dialect() -> None:
    assert [name for name in layer_type_list() if not dialects_of_type(name)] == []
    assert len(BVLC_TYPES) == 61
    assert dialects_of_type("ReLU") == list(DIALECTS)
    assert dialects_of_type("BN") == ["segnet", "pspnet"]
    assert dialects_of_field("PoolingParameter", "kernel_size") == []
    assert titles(["ssd", "rcnn", "yolo"]) == "SSD, Fast R-CNN and YOLO ports"


def test_no_dialect_repeats_what_bvlc_has() -> None:
    messages = set(proto.message_names())
    for dialect in DIALECTS.values():
        assert not dialect.types & BVLC_TYPES
        assert {name.partition(".")[0] for name in dialect.fields} <= messages


def test_all_missing_types_are_listed_at_once() -> None:
    given = net(
        'layer { name: "a" type: "MultiBoxLoss" } layer { name: "b" type: "MultiBoxLoss" } '
        'layer { name: "c" type: "Region" } layer { name: "d" type: "Pool" }'
    )
    with pytest.raises(UnsupportedError) as error:
        require_types(given.layer)
    assert str(error.value) == (
        "layer 'a': unknown layer types in the net: 'MultiBoxLoss' (of SSD, NVIDIA Caffe "
        "and Intel Caffe) in 2 layers, 'Region' (of YOLO ports) in 1 layer, 'Pool' in 1 layer; "
        "expected types of the reference page; define the others as Python layers or remove them"
    )


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("Convolutoin", "did you mean Convolution"),
        ("MultiBoxLoss", "of SSD"),
        ("WindowData", r"\(of BVLC Caffe\)"),
    ],
)
def test_one_missing_type(kind: str, hint: str) -> None:
    with pytest.raises(UnsupportedError, match=f"layer 'a': unknown layer type '{kind}'.*{hint}"):
        require_types(net(f'layer {{ name: "a" type: "{kind}" }}').layer)


@pytest.mark.parametrize("kind", ["RoiPool", "BNN", "Pooling3D", "ConvolutionX3D"])
def test_no_other_layer_is_proposed(kind: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        require_types(net(f'layer {{ name: "a" type: "{kind}" }}').layer)
    assert "did you mean" not in str(error.value)


def test_a_field_of_a_dialect_is_named() -> None:
    with pytest.raises(ProtoError, match=r"n:1:30: LayerParameter has no field 'multibox_loss_"):
        net('layer { type: "MultiBoxLoss" multibox_loss_param { } }')
    with pytest.raises(ProtoError, match="one of NVIDIA Caffe, which is not supported"):
        net('layer { type: "Data" data_param { cache: true } }')
