"""Current nets written in the V1 form: what comes back by the upgrade, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from prototxt_gen import proto
from prototxt_gen.downgrade import downgrade_v1
from prototxt_gen.errors import UnsupportedError
from prototxt_gen.text import parse, to_text
from prototxt_gen.upgrade import upgrade_net

NET = """name: "n" force_backward: true state { level: 1 }
layer { name: "input" type: "Input" top: "data" input_param { shape { dim: [1, 3, 8, 8] } } }
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  include { stage: "s" } exclude { stage: "t" }
  blobs { shape { dim: 2 } data: [1, 2] }
  convolution_param { num_output: 2 kernel_size: 3 dilation: 2 }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv1" bottom: "data" top: "loss"
  loss_weight: 0.5 loss_param { normalization: FULL } }
"""


def net_of(text: str) -> Any:
    return parse(text, proto.NetParameter)


def refused(text: str, complaint: str) -> None:
    with pytest.raises(UnsupportedError, match=complaint):
        downgrade_v1(net_of(text), "n")


def test_v1_text() -> None:
    assert to_text(downgrade_v1(net_of(NET))) == to_text(
        net_of("""name: "n" input: "data" input_dim: [1, 3, 8, 8] force_backward: true
        state { level: 1 }
        layers { bottom: "data" top: "conv1" name: "conv1" include { stage: "s" }
          exclude { stage: "t" } type: CONVOLUTION blobs { shape { dim: 2 } data: [1, 2] }
          blobs_lr: [1, 2] weight_decay: [1, 0]
          convolution_param { num_output: 2 kernel_size: 3 dilation: 2 } }
        layers { bottom: "conv1" bottom: "data" top: "loss" name: "loss" type: SOFTMAX_LOSS
          loss_weight: 0.5 loss_param { normalization: FULL } }""")
    )


def test_the_upgrade_gives_the_net_back() -> None:
    net = net_of(NET)
    before = to_text(net)
    back = downgrade_v1(net)
    assert to_text(net) == before
    upgrade_net(back, "n")
    assert to_text(back) == to_text(net)


def test_the_phase_a_net_was_built_in_is_left_out() -> None:
    net = net_of(NET)
    expected = to_text(downgrade_v1(net))
    for layer in net.layer:
        layer.phase = proto.TEST
    assert to_text(downgrade_v1(net)) == expected
    net.layer[1].phase = proto.TRAIN
    with pytest.raises(UnsupportedError, match=r"layer 'input' has a field that V1 lacks.*phase"):
        downgrade_v1(net)
    net.layer[0].ClearField("phase")
    net.layer[2].ClearField("phase")
    with pytest.raises(UnsupportedError, match=r"layer 'conv1' has a field that V1 lacks.*phase"):
        downgrade_v1(net)


def message_of(message: Any, field: Any) -> Any:
    """A new message of the type of a field."""
    value = getattr(type(message)(), field.name)
    return value.add() if proto.is_repeated(field) else value


def settable(message: Any, depth: int = 3) -> list[tuple[Any, Any]]:
    """Values for every field of a message, one field at a time; messages to some depth."""
    found = []
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            inner = message_of(message, field)
            values = [value for value, _ in settable(inner, depth - 1)] if depth else []
        elif field.enum_type is not None:
            values = [value.number for value in field.enum_type.values]
        else:
            values = ["s"] if proto.type_name(field) == "string" else [1]
        for value in values:
            holder = type(message)()
            if proto.is_repeated(field):
                getattr(holder, field.name).append(value)
            elif field.message_type is not None:
                getattr(holder, field.name).CopyFrom(value)
            else:
                setattr(holder, field.name, value)
            found.append((holder, field))
    return found


def test_every_field_of_a_layer_comes_back_or_is_refused() -> None:
    carried = 0
    for layer, field in settable(proto.LayerParameter(), 2):
        if field.name in ("type", "phase"):
            continue
        net = proto.NetParameter(layer=[layer, proto.LayerParameter(name="other")])
        net.layer[0].type = "Convolution"
        before = to_text(net)
        try:
            back = downgrade_v1(net)
        except UnsupportedError:
            assert field.name not in proto.V1LayerParameter.DESCRIPTOR.fields_by_name
            continue
        upgrade_net(back, "n")
        assert to_text(back) == before
        carried += 1
    assert carried > 150


def test_a_shared_parameter_keeps_its_owners_rate() -> None:
    params = 'param { name: "w" } param { name: "b" lr_mult: 2 }'
    refused(
        f'layer {{ name: "x" type: "InnerProduct" {params} }}',
        "n: layer 'x': shared param 0 has no lr_mult, and param 1 has one, which V1 cannot "
        "express; expected lr_mult in both, got one; add lr_mult to param 0",
    )
    own = downgrade_v1(net_of('layer { type: "ReLU" param { } param { name: "b" lr_mult: 2 } }'))
    assert list(own.layers[0].blobs_lr) == [1, 2]


def test_dimensions_beyond_input_dim() -> None:
    shape = "shape { dim: [1, 1, 1, 3000000000] }"
    v1 = downgrade_v1(net_of(f'layer {{ type: "Input" top: "a" input_param {{ {shape} }} }}'))
    assert list(v1.input_shape[0].dim) == [1, 1, 1, 3000000000] and not v1.input_dim


@pytest.mark.parametrize(
    "field",
    [b"\x0a\x01\xff", b"\x1a\x01\xff", b"\x22\x01\xff", b"\x32\x03\x0a\x01\xff"],
    ids=["name", "bottom", "top", "param"],
)
def test_names_that_are_not_utf8(field: bytes) -> None:
    net = proto.NetParameter()
    net.layer.add(type="ReLU").MergeFromString(field)
    with pytest.raises(UnsupportedError, match="n: a name is not UTF-8 and has no V1 form here"):
        downgrade_v1(net, "n")


def test_param_lists_are_as_long_as_needed() -> None:
    v1 = downgrade_v1(
        net_of(
            'layer { type: "ReLU" param { lr_mult: 3 } param { name: "w" } '
            "param { share_mode: PERMISSIVE } param { } }"
        )
    ).layers[0]
    assert list(v1.blobs_lr) == [3]
    assert list(v1.param) == ["", "w"]
    assert list(v1.blob_share_mode) == [0, 0, 1]
    assert list(v1.weight_decay) == []


def test_inputs_of_other_dimensions_and_one_shape_for_all() -> None:
    net = net_of('layer { type: "Input" top: "a" top: "b" input_param { shape { dim: 5 } } }')
    v1 = downgrade_v1(net)
    assert to_text(v1) == to_text(
        net_of('input: "a" input: "b" input_shape { dim: 5 } input_shape { dim: 5 }')
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'layer { name: "b" type: "BatchNorm" }',
            "n: layer 'b' has a type that V1 lacks; expected one of AbsVal, .* got 'BatchNorm'; "
            "write the current form",
        ),
        (
            'layer { name: "r" type: "ReLU" elu_param { alpha: 1 } }',
            "n: layer 'r' has a field that V1 lacks; expected fields of V1 only, got elu_param",
        ),
        ('layer { type: "ReLU" propagate_down: true }', "got propagate_down"),
        (
            'layer { name: "i" type: "Input" top: "a" }',
            r"n: layer 'i' \(Input\) has no V1 form; expected a shape for each top and no include "
            "or exclude, got 1 tops, 0 shapes and 0 rules",
        ),
        (
            'layer { type: "Input" top: "a" input_param { shape { dim: 1 } } include { } }',
            "1 shapes and 1 rules",
        ),
        ("layers { type: RELU }", "n: the net is of an older form already; expected layer"),
        ('input: "a"', "upgrade it first"),
    ],
)
def test_what_v1_lacks(text: str, complaint: str) -> None:
    refused(text, complaint)
