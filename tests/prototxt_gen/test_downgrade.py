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
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1" phase: TRAIN
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


def test_the_upgrade_gives_the_net_back_without_its_phases() -> None:
    net = net_of(NET)
    before = to_text(net)
    back = downgrade_v1(net)
    assert to_text(net) == before
    upgrade_net(back, "n")
    net.layer[1].ClearField("phase")
    assert to_text(back) == to_text(net)


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
