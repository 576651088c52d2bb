"""Nets of the V1 form, VGG's released one, brought to the current one."""

from __future__ import annotations

import pytest

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.upgrade import V1_TYPE_NAMES, upgrade_v1_layer, v1_type_name
from tests.prototxt_gen.upgrading import check, refused, upgraded


def vgg16_v1() -> str:
    """VGG-16's deploy text in the form it was released in."""
    widths = {1: [64] * 2, 2: [128] * 2, 3: [256] * 3, 4: [512] * 3, 5: [512] * 3}
    lines = ['name: "VGG_ILSVRC_16_layers"', 'input: "data"']
    lines += [f"input_dim: {dim}" for dim in (10, 3, 224, 224)]
    bottom = "data"

    def add(name: str, kind: str, param: str, top: str) -> None:
        nonlocal bottom
        lines.append(
            f'layers {{\n  bottom: "{bottom}"\n  top: "{top}"\n  name: "{name}"\n'
            f"  type: {kind}\n  {param}\n}}"
        )
        bottom = top

    for stage, outputs in widths.items():
        for number, width in enumerate(outputs, 1):
            name = f"conv{stage}_{number}"
            size = f"num_output: {width}\n    pad: 1\n    kernel_size: 3"
            add(name, "CONVOLUTION", f"convolution_param {{\n    {size}\n  }}", name)
            add(f"relu{stage}_{number}", "RELU", "", name)
        pool = "pooling_param {\n    pool: MAX\n    kernel_size: 2\n    stride: 2\n  }"
        add(f"pool{stage}", "POOLING", pool, f"pool{stage}")
    for number, width in ((6, 4096), (7, 4096), (8, 1000)):
        top = f"fc{number}"
        add(top, "INNER_PRODUCT", f"inner_product_param {{\n    num_output: {width}\n  }}", top)
        if number < 8:
            add(f"relu{number}", "RELU", "", top)
            add(f"drop{number}", "DROPOUT", "dropout_param {\n    dropout_ratio: 0.5\n  }", top)
    add("prob", "SOFTMAX", "", "prob")
    return "\n".join(lines)


def test_released_vgg16() -> None:
    net = upgraded(vgg16_v1())
    assert net.name == "VGG_ILSVRC_16_layers"
    types = [layer.type for layer in net.layer]
    assert types[:5] == ["Input", "Convolution", "ReLU", "Convolution", "ReLU"]
    assert len(types) == 1 + 13 * 2 + 5 + 3 + 2 * 2 + 1
    assert list(net.layer[0].top) == ["data"]
    assert list(net.layer[0].input_param.shape[0].dim) == [10, 3, 224, 224]
    tail = ["pool5", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8", "prob"]
    assert [layer.name for layer in net.layer][-9:] == tail
    assert [layer.top[0] for layer in net.layer][-9:] == (
        ["pool5", "fc6", "fc6", "fc6", "fc7", "fc7", "fc7", "fc8", "prob"]
    )
    convolutions = [layer.convolution_param for layer in net.layer if layer.type == "Convolution"]
    assert sum(param.num_output for param in convolutions) == 4224
    assert all(list(param.kernel_size) == [3] and list(param.pad) == [1] for param in convolutions)


def test_v1_layer_whole() -> None:
    check(
        """layers {
          name: "c" type: CONVOLUTION bottom: "a" bottom: "b" top: "x" top: "y"
          param: "w" param: "" blob_share_mode: PERMISSIVE blobs_lr: 1 blobs_lr: 2 blobs_lr: 3
          weight_decay: 0.5 loss_weight: 0 loss_weight: 1
          include { phase: TEST } include { stage: "s" } exclude { min_level: 2 }
          convolution_param { num_output: 3 kernel_size: 5 group: 2 }
          transform_param { scale: 2 } loss_param { ignore_label: 9 }
          blobs { num: 1 channels: 1 height: 1 width: 2 data: [1, 2] }
        }""",
        """layer {
          name: "c" type: "Convolution" bottom: "a" bottom: "b" top: "x" top: "y"
          param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 0.5 }
          param { name: "" lr_mult: 2 } param { lr_mult: 3 }
          loss_weight: 0 loss_weight: 1
          include { phase: TEST } include { stage: "s" } exclude { min_level: 2 }
          convolution_param { num_output: 3 kernel_size: 5 group: 2 }
          transform_param { scale: 2 } loss_param { ignore_label: 9 }
          blobs { num: 1 channels: 1 height: 1 width: 2 data: [1, 2] }
        }""",
    )


def test_every_v1_type_has_its_name() -> None:
    values = proto.V1LayerParameter.LayerType.items()
    assert set(V1_TYPE_NAMES) == {name for name, _ in values}
    for name, number in values:
        layer = upgrade_v1_layer(proto.V1LayerParameter(name="n", type=number))
        assert (layer.name, layer.type) == ("n", V1_TYPE_NAMES[name])
        assert v1_type_name(number) == layer.type
        # The names differ in case and underscores only, but for one.
        spelt = name.replace("_", "").lower()
        assert spelt in (layer.type.lower(), "none") or name == "SOFTMAX_LOSS"
    assert V1_TYPE_NAMES["SOFTMAX_LOSS"] == "SoftmaxWithLoss"
    with pytest.raises(ProtoError, match=r"unknown layer type; expected a number .* got 99"):
        v1_type_name(99)


def test_every_v1_parameter_is_carried() -> None:
    for field in proto.V1LayerParameter.DESCRIPTOR.fields:
        if field.name.endswith("_param"):
            v1 = proto.V1LayerParameter(name="n")
            getattr(v1, field.name).SetInParent()
            layer = upgrade_v1_layer(v1)
            assert [set_.name for set_, _ in layer.ListFields()] == ["name", field.name]


def test_v1_fields_of_the_net_stay() -> None:
    check(
        'name: "x" force_backward: true debug_info: true state { stage: "s" } layers { name: "a" }',
        'name: "x" force_backward: true debug_info: true state { stage: "s" } layer { name: "a" }',
    )


def test_both_forms_in_one_net_are_refused() -> None:
    refused(
        'layer { name: "a" } layers { name: "b" }',
        r"n: the net mixes 'layers \{ \}' and 'layer \{ \}'; expected one form, got 1 of the "
        r"first and 1 of the second; write them all as",
    )


@pytest.mark.parametrize(
    ("kind", "name", "param"),
    [
        ("DATA", "Data", "data_param"),
        ("IMAGE_DATA", "ImageData", "image_data_param"),
        ("WINDOW_DATA", "WindowData", "window_data_param"),
    ],
)
def test_v1_data_transformation_moves(kind: str, name: str, param: str) -> None:
    check(
        f'layers {{ name: "d" type: {kind} {param} {{ source: "s" batch_size: 2 scale: 0.5 '
        'mean_file: "m" crop_size: 7 mirror: true } }',
        f'layer {{ name: "d" type: "{name}" {param} {{ source: "s" batch_size: 2 }} '
        'transform_param { scale: 0.5 mean_file: "m" crop_size: 7 mirror: true } }',
    )


def test_data_transformation_of_another_type_stays() -> None:
    text = 'layers { type: RELU data_param { scale: 2 } } layers { type: DATA name: "d" }'
    assert upgraded(text).layer[0].data_param.scale == 2
