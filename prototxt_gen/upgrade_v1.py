"""Upgrades nets of the V1 form, `layers { type: CONVOLUTION }`, to the current form."""

from __future__ import annotations

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.proto import Message

V1_TYPE_NAMES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
"""V1's enum names and the corresponding type strings."""

PARAM_LISTS = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}
"""V1's lists with an entry for each blob, and the corresponding fields of ParamSpec."""

DATA_PARAMS = {
    "Data": "data_param",
    "ImageData": "image_data_param",
    "WindowData": "window_data_param",
}
TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def v1_type_name(number: int) -> str:
    """The current type string of the number of a V1 type, as used in weight files.

    Raises:
        ProtoError: no V1 type has this number.
    """
    value = proto.V1LayerParameter.LayerType.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        raise ProtoError(
            f"V1LayerParameter: unknown layer type; expected a number of its LayerType, got "
            f"{number}; the file may come from another build of Caffe"
        )
    return V1_TYPE_NAMES[value.name]


def upgrade_v1_layer(v1: Message) -> Message:
    """Convert a V1LayerParameter, including its blobs, to a LayerParameter.

    Caffe: upgrade_proto.cpp; a V0 part of the layer is left out.
    """
    layer = proto.LayerParameter()
    for field, value in v1.ListFields():
        name = field.name
        if name == "type":
            layer.type = v1_type_name(value)
        elif name in PARAM_LISTS:
            for index, item in enumerate(value):
                if len(layer.param) <= index:
                    layer.param.add()
                setattr(layer.param[index], PARAM_LISTS[name], item)
        elif name == "layer":
            continue
        elif proto.is_repeated(field):
            getattr(layer, name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(layer, name).CopyFrom(value)
        else:
            setattr(layer, name, value)
    return layer


def needs_data_upgrade(net: Message) -> bool:
    """Whether a V1 data layer has fields for the transformation of images."""
    return any(_old_transformation(layer) for layer in net.layers)


def upgrade_data_transformation(net: Message) -> list[str]:
    """Move scale, mean_file, crop_size and mirror of V1's data layers to transform_param."""
    sentences = []
    for layer in net.layers:
        names = _old_transformation(layer)
        if names:
            old = getattr(layer, _data_param(layer))
            for name in names:
                setattr(layer.transform_param, name, getattr(old, name))
                old.ClearField(name)
            sentences.append(f"layer {layer.name!r}: {', '.join(names)} moved to transform_param")
    return sentences


def _data_param(layer: Message) -> str:
    return DATA_PARAMS.get(v1_type_name(layer.type), "")


def _old_transformation(layer: Message) -> list[str]:
    name = _data_param(layer)
    if not name:
        return []
    old = getattr(layer, name)
    return [field for field in TRANSFORM_FIELDS if old.HasField(field)]


def upgrade_v1_net(net: Message, where: str) -> list[str]:
    """Upgrade the net's `layers` to `layer` in place; returns a sentence on the change.

    Raises:
        ProtoError: the net has both forms.
    """
    if len(net.layer):
        raise ProtoError(
            f"{where}: the net mixes 'layers {{ }}' and 'layer {{ }}'; expected one form, got "
            f"{len(net.layers)} of the first and {len(net.layer)} of the second; write them all "
            'as layer { type: "..." }'
        )
    count = len(net.layers)
    net.layer.extend(upgrade_v1_layer(layer) for layer in net.layers)
    net.ClearField("layers")
    return [f"{count} layers of the V1 form (layers {{ }}) upgraded"]
