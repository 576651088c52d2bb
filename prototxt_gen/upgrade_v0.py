"""Upgrades Caffe's oldest nets, `layers { layer { type: "conv" } }`, to the V1 form."""

from __future__ import annotations

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.proto import Message, copy_of

V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}
"""V0's type strings and V1's enum names; "padding" has none and is merged into the next layer."""

_FILLED = ("num_output", "biasterm", "weight_filler", "bias_filler")
_DETECTION = (
    "det_fg_threshold",
    "det_bg_threshold",
    "det_fg_fraction",
    "det_context_pad",
    "det_crop_mode",
)
_PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "concat": ("concat_param", ("concat_dim",)),
    "conv": ("convolution_param", (*_FILLED, "pad", "kernelsize", "group", "stride")),
    "data": ("data_param", ("source", "batchsize", "rand_skip")),
    "dropout": ("dropout_param", ("dropout_ratio",)),
    "hdf5_data": ("hdf5_data_param", ("source", "batchsize")),
    "images": (
        "image_data_param",
        ("source", "batchsize", "rand_skip", "shuffle_images", "new_height", "new_width"),
    ),
    "infogain_loss": ("infogain_loss_param", ("source",)),
    "innerproduct": ("inner_product_param", _FILLED),
    "lrn": ("lrn_param", ("local_size", "alpha", "beta", "k")),
    "pool": ("pooling_param", ("pad", "kernelsize", "stride", "pool")),
    "window_data": ("window_data_param", ("source", "batchsize", *_DETECTION)),
}
_RENAMED = {
    "batchsize": "batch_size",
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "shuffle_images": "shuffle",
    **{name: name.removeprefix("det_") for name in _DETECTION},
}
_TRANSFORM = {
    "scale": "scale",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "mirror": "mirror",
}


def needs_v0_upgrade(net: Message) -> bool:
    """Whether any layer is of the V0 form."""
    return any(layer.HasField("layer") for layer in net.layers)


def upgrade_v0_net(net: Message, where: str) -> list[str]:
    """Upgrade the net's layers to V1 in place; returns sentences on changes and omitted fields.

    Raises:
        ProtoError: an unknown type, a padding layer that cannot be merged, or a net of both forms.

    Caffe: upgrade_proto.cpp; it also omits fields that the layer's type does not have. Of the
    fields around the V0 part, Caffe keeps only bottom and top; here all are kept (include,
    loss_weight and others).
    """
    for index, layer in enumerate(net.layers):
        if not layer.HasField("layer"):
            raise ProtoError(
                f"{where}: layers {index} ({layer.name!r}) is of the V1 form in a net of the V0 "
                "form; expected layers { layer { ... } } throughout, got both; write all in one"
            )
    count = len(net.layers)
    sentences = _fold_padding(net, where)
    upgraded = [_upgrade_layer(layer, where, sentences) for layer in net.layers]
    del net.layers[:]
    net.layers.extend(upgraded)
    return [f"{count} layers of the V0 form (layers {{ layer {{ }} }}) upgraded", *sentences]


def _fold_padding(net: Message, where: str) -> list[str]:
    """Remove the padding layers; the layers that read them take over their pad and bottom."""
    producer: dict[str, Message | None] = dict.fromkeys(net.input)
    kept: list[Message] = []
    sentences: list[str] = []
    for layer in net.layers:
        old = layer.layer
        source_tops = list(layer.top)
        for index, name in enumerate(layer.bottom):
            if name not in producer:
                raise ProtoError(
                    f"{where}: layer {old.name!r} reads an unknown blob; expected a top of an "
                    f"earlier layer, got {name!r}; correct its bottom"
                )
            source = producer[name]
            if source is not None and source.layer.type == "padding":
                _check_padding(layer, source, where)
                old.pad = source.layer.pad
                layer.bottom[index] = source.bottom[0]
                sentences.append(
                    f"padding layer {source.layer.name!r} folded into {old.name!r}: pad {old.pad}"
                )
        if old.type != "padding":
            kept.append(layer)
        producer.update(dict.fromkeys(source_tops, layer))
    copies = [copy_of(layer) for layer in kept]
    del net.layers[:]
    net.layers.extend(copies)
    return sentences


def _check_padding(layer: Message, source: Message, where: str) -> None:
    fits = (
        layer.layer.type in ("conv", "pool")
        and len(layer.bottom) == len(source.bottom) == len(source.top) == 1
    )
    if not fits:
        raise ProtoError(
            f"{where}: padding layer {source.layer.name!r} cannot be folded; expected one bottom "
            f"and one top, read by a conv or pool layer of one bottom, got layer "
            f"{layer.layer.name!r} of type {layer.layer.type!r}; pad in the convolution instead"
        )


def _upgrade_layer(layer: Message, where: str, sentences: list[str]) -> Message:
    """The layer in the V1 form: the fields of its V0 part, and the V1 fields around it."""
    old = layer.layer
    result = copy_of(layer)
    result.ClearField("layer")
    if old.HasField("type"):
        if old.type not in V0_TYPES:
            raise ProtoError(
                f"{where}: layer {old.name!r} has an unknown type; expected one of "
                f"{', '.join(V0_TYPES)}, got {old.type!r}; correct its type"
            )
        result.type = proto.V1LayerParameter.LayerType.Value(V0_TYPES[old.type])
    message, placed = _PLACES.get(old.type, ("", ()))
    for field, value in old.ListFields():
        name = field.name
        if name in placed:
            _assign(getattr(result, message), _RENAMED.get(name, name), value, where)
        elif name in _TRANSFORM:
            setattr(result.transform_param, _TRANSFORM[name], value)
        elif name in ("name", "blobs", "blobs_lr", "weight_decay"):
            result.ClearField(name)
            _assign(result, name, value, where)
        elif name == "hdf5_output_param" and old.type == "hdf5_output":
            result.hdf5_output_param.CopyFrom(value)
        elif name != "type":
            sentences.append(
                f"layer {old.name!r}: {name} has no place in type {old.type!r}, left out"
            )
    return result


def _assign(target: Message, name: str, value: Message, where: str) -> None:
    """Set a field to a value of the old form, which may be a list where the new one is not."""
    field = target.DESCRIPTOR.fields_by_name[name]
    try:
        if proto.is_repeated(field):
            repeated = hasattr(value, "__len__")
            getattr(target, name).extend(value if repeated else [value])
        elif field.message_type is not None:
            getattr(target, name).CopyFrom(value)
        else:
            setattr(target, name, value)
    except ValueError as cause:
        raise ProtoError(
            f"{where}: {name} is out of range; expected a number of 0 or more, got {value}; "
            "correct it"
        ) from cause
