"""Nets of Caffe's first form, with padding layers, brought to the current one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.text import parse, to_text
from prototxt_gen.upgrade import needs_upgrade, upgrade_net
from prototxt_gen.upgrade_v0 import V0_TYPES
from tests.prototxt_gen.upgrading import check, refused

V0 = """name: "v0" force_backward: true input: "data" input_dim: [1, 3, 9, 9]
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers {
  layer {
    name: "conv1" type: "conv" num_output: 4 biasterm: false kernelsize: 3 stride: 2 group: 1
    weight_filler { type: "xavier" } bias_filler { value: 1 }
    blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 blobs { num: 1 data: 5 }
  }
  bottom: "pad1" top: "conv1"
}
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pad2" type: "padding" pad: 1 } bottom: "conv1" top: "pad2" }
layers {
  layer { name: "pool1" type: "pool" kernelsize: 3 stride: 2 pool: AVE }
  bottom: "pad2" top: "pool1"
}
layers {
  layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.5 k: 2 }
  bottom: "pool1" top: "norm1"
}
layers {
  layer { name: "ip" type: "innerproduct" num_output: 7 biasterm: true }
  bottom: "norm1" top: "ip"
}
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.2 } bottom: "ip" top: "ip" }
layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }
"""


V1 = """name: "v1" input: "data" input_dim: [1, 3, 9, 9]
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 blobs_lr: 2
  convolution_param { num_output: 4 kernel_size: 3 } }
layers { name: "data2" type: DATA top: "data2" data_param { source: "s" crop_size: 3 } }
"""


def test_v0_net_with_padding_layers() -> None:
    check(
        V0,
        """name: "v0" force_backward: true
        layer { name: "input" type: "Input" top: "data" input_param {
          shape { dim: [1, 3, 9, 9] } } }
        layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
          param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
          blobs { num: 1 data: 5 }
          convolution_param { num_output: 4 bias_term: false pad: 2 kernel_size: 3 stride: 2
            group: 1 weight_filler { type: "xavier" } bias_filler { value: 1 } } }
        layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
        layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
          pooling_param { pool: AVE pad: 1 kernel_size: 3 stride: 2 } }
        layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1"
          lrn_param { local_size: 3 alpha: 0.1 beta: 0.5 k: 2 } }
        layer { name: "ip" type: "InnerProduct" bottom: "norm1" top: "ip"
          inner_product_param { num_output: 7 bias_term: true } }
        layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip"
          dropout_param { dropout_ratio: 0.2 } }
        layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }""",
    )


def test_v0_logs_its_changes() -> None:
    assert upgrade_net(parse(V0, proto.NetParameter), "n") == [
        "9 layers of the V0 form (layers { layer { } }) upgraded",
        "padding layer 'pad1' folded into 'conv1': pad 2",
        "padding layer 'pad2' folded into 'pool1': pad 1",
        "7 layers of the V1 form (layers { }) upgraded",
        "input 'data' made a layer of type Input",
    ]


def test_v0_data_layers() -> None:
    transform = 'scale: 0.1 meanfile: "m" cropsize: 5 mirror: true'
    check(
        f"""layers {{ top: "a" layer {{ name: "d" type: "data" source: "s" batchsize: 3
          rand_skip: 4 {transform} }} }}
        layers {{ top: "b" layer {{ name: "i" type: "images" source: "s" batchsize: 3 rand_skip: 4
          shuffle_images: true new_height: 6 new_width: 7 }} }}
        layers {{ top: "c" layer {{ name: "w" type: "window_data" source: "s" batchsize: 3
          det_fg_threshold: 0.1 det_bg_threshold: 0.2 det_fg_fraction: 0.3 det_context_pad: 4
          det_crop_mode: "square" }} }}
        layers {{ top: "h" layer {{ name: "h" type: "hdf5_data" source: "s" batchsize: 3 }} }}
        layers {{ bottom: "h" layer {{ name: "o" type: "hdf5_output"
          hdf5_output_param {{ file_name: "f" }} }} }}
        layers {{ bottom: "h" bottom: "b" top: "l" layer {{ name: "g" type: "infogain_loss"
          source: "s" }} }}
        layers {{ bottom: "h" top: "k" layer {{ name: "k" type: "concat" concat_dim: 0 }} }}""",
        """layer { top: "a" name: "d" type: "Data" data_param { source: "s" batch_size: 3
          rand_skip: 4 } transform_param { scale: 0.1 mean_file: "m" crop_size: 5 mirror: true } }
        layer { top: "b" name: "i" type: "ImageData" image_data_param { source: "s" batch_size: 3
          rand_skip: 4 shuffle: true new_height: 6 new_width: 7 } }
        layer { top: "c" name: "w" type: "WindowData" window_data_param { source: "s" batch_size: 3
          fg_threshold: 0.1 bg_threshold: 0.2 fg_fraction: 0.3 context_pad: 4
          crop_mode: "square" } }
        layer { top: "h" name: "h" type: "HDF5Data" hdf5_data_param { source: "s" batch_size: 3 } }
        layer { bottom: "h" name: "o" type: "HDF5Output" hdf5_output_param { file_name: "f" } }
        layer { bottom: "h" bottom: "b" top: "l" name: "g" type: "InfogainLoss"
          infogain_loss_param { source: "s" } }
        layer { bottom: "h" top: "k" name: "k" type: "Concat" concat_param { concat_dim: 0 } }""",
    )


def test_v0_field_without_a_place_is_left_out_and_logged() -> None:
    net = parse('layers { layer { name: "r" type: "relu" num_output: 3 } }', proto.NetParameter)
    assert "layer 'r': num_output has no place in type 'relu', left out" in upgrade_net(net, "n")
    assert to_text(net) == 'layer {\n  name: "r"\n  type: "ReLU"\n}\n'


def test_v0_keeps_the_fields_around_its_layer() -> None:
    """What the V0 part gives as well is its own."""
    check(
        """layers { name: "outer" include { phase: TEST } exclude { min_level: 2 } loss_weight: 3
          param: "w" blob_share_mode: PERMISSIVE blobs_lr: 9 blobs { data: 7 }
          transform_param { crop_size: 4 scale: 3 } loss_param { ignore_label: 1 }
          layer { type: "softmax_loss" scale: 2 blobs_lr: 5 weight_decay: 6 } }
        layers { name: "outer" layer { name: "inner" type: "relu" blobs { data: 8 } } }""",
        """layer { name: "outer" type: "SoftmaxWithLoss" include { phase: TEST }
          exclude { min_level: 2 } loss_weight: 3
          param { name: "w" share_mode: PERMISSIVE lr_mult: 5 decay_mult: 6 } blobs { data: 7 }
          transform_param { crop_size: 4 scale: 2 } loss_param { ignore_label: 1 } }
        layer { name: "inner" type: "ReLU" blobs { data: 8 } }""",
    )


def v0_values() -> list[tuple[str, Any]]:
    """Each field of the V0 layer, with a value that is not its default."""
    words = {"bool": lambda field: not field.default_value, "string": lambda field: "word"}
    fields = proto.V0LayerParameter.DESCRIPTOR.fields
    return [
        (field.name, words.get(proto.type_name(field), lambda field: 3)(field))
        for field in fields
        if field.message_type is None and field.enum_type is None and field.name != "type"
    ]


@pytest.mark.parametrize(("name", "value"), v0_values())
def test_every_v0_field_is_carried_or_named(name: str, value: Any) -> None:
    """In each of the types: the value is in the current layer, or a sentence names the field."""
    for kind in V0_TYPES:
        net = proto.NetParameter()
        old = net.layers.add().layer
        old.type = kind
        if name in ("blobs_lr", "weight_decay"):
            getattr(old, name).append(value)
        else:
            setattr(old, name, value)
        sentences = upgrade_net(net, "n")
        net.layer[0].ClearField("type")
        carried = repr(value).strip("'").lower() in to_text(net).lower()
        assert carried is not any(f": {name} has no place" in line for line in sentences), kind


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'layers { layer { name: "a" type: "conw" } }',
            "n: layer 'a' has an unknown type; expected one of accuracy, .* got 'conw'; correct",
        ),
        (
            'layers { layer { name: "a" type: "conv" } bottom: "x" }',
            "n: layer 'a' reads an unknown blob; expected a top of an earlier layer, got 'x'",
        ),
        (
            'input: "d" layers { layer { name: "p" type: "padding" } bottom: "d" top: "p" } '
            'layers { layer { name: "r" type: "relu" } bottom: "p" }',
            "n: padding layer 'p' cannot be folded; expected one bottom and one top, read by a "
            "conv or pool layer of one bottom, got layer 'r' of type 'relu'; pad in the conv",
        ),
        (
            'input: "d" layers { layer { name: "p" type: "padding" } bottom: "d" top: "p" } '
            'layers { layer { name: "c" type: "conv" } bottom: "p" bottom: "d" }',
            "padding layer 'p' cannot be folded",
        ),
        (
            'layers { layer { type: "relu" } } layers { name: "b" type: RELU }',
            r"n: layers 1 \('b'\) is of the V1 form in a net of the V0 form; expected layers",
        ),
        (
            'layers { layer { type: "images" new_height: -3 } }',
            "n: new_height is out of range; expected a number of 0 or more, got -3; correct it",
        ),
    ],
)
def test_v0_nets_that_cannot_be(text: str, complaint: str) -> None:
    refused(text, complaint)


def check_mutants(seeds: range) -> None:
    """Nets whose words are swapped, dropped or replaced upgrade, or are refused."""
    words = [V0.split(), V1.split()]
    strange = ["0", "-1", '"x"', '"conv"', '"padding"', "TANH", "{", "}", "1e9", "layer"]
    for seed in seeds:
        generator = random.Random(seed)
        text = list(words[seed % 2])
        for _ in range(generator.randint(1, 3)):
            at = generator.randrange(len(text))
            text[at] = generator.choice([*strange, generator.choice(text), ""])
        try:
            net = parse(" ".join(text), proto.NetParameter, "mutant")
            upgrade_net(net, "mutant")
        except ProtoError as error:
            assert str(error).startswith("mutant"), seed
        else:
            assert not needs_upgrade(net), seed


def test_mutants_are_upgraded_or_refused() -> None:
    check_mutants(range(100))


@pytest.mark.slow
def test_many_mutants_are_upgraded_or_refused() -> None:
    check_mutants(range(100, 2100))
