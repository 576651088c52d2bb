"""A current net written in the V1 form, for readers of the time of the released VGG nets."""

from __future__ import annotations

from prototxt_gen import proto
from prototxt_gen.errors import UnsupportedError
from prototxt_gen.proto import Message
from prototxt_gen.upgrade_v1 import PARAM_LISTS, V1_TYPE_NAMES

_LEGACY_AXES = 4


def downgrade_v1(net: Message, where: str = "net") -> Message:
    """A new NetParameter with `layers { type: ENUM }` that upgrades to the same net.

    Input layers become the net's `input` with `input_dim`, or `input_shape` where a shape is not
    of four dimensions. A layer's phase, which only says where it was built, is left out.

    Raises:
        UnsupportedError: a layer has a type or a field that V1 lacks.
    """
    if len(net.layers) or len(net.input):
        raise UnsupportedError(
            f"{where}: the net is of an older form already; expected layer {{ }} only, got layers "
            "or input; upgrade it first"
        )
    result = proto.NetParameter()
    for field, value in net.ListFields():
        if field.name == "layer":
            continue
        if proto.is_repeated(field):
            getattr(result, field.name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(result, field.name).CopyFrom(value)
        else:
            setattr(result, field.name, value)
    shapes: list[Message] = []
    for layer in net.layer:
        if layer.type == "Input":
            shapes += _input(layer, result, where)
        else:
            result.layers.append(_layer(layer, where))
    if all(len(shape.dim) == _LEGACY_AXES for shape in shapes):
        result.input_dim.extend(dim for shape in shapes for dim in shape.dim)
    else:
        result.input_shape.extend(shapes)
    return result


def _input(layer: Message, result: Message, where: str) -> list[Message]:
    """Name the layer's tops among the net's inputs, and give a shape for each."""
    shapes = list(layer.input_param.shape)
    if len(shapes) == 1:
        shapes *= len(layer.top)
    if len(shapes) != len(layer.top) or len(layer.include) or len(layer.exclude):
        raise UnsupportedError(
            f"{where}: layer {layer.name!r} (Input) has no V1 form; expected a shape for each top "
            f"and no include or exclude, got {len(layer.top)} tops, {len(shapes)} shapes and "
            f"{len(layer.include) + len(layer.exclude)} rules; write the current form"
        )
    result.input.extend(layer.top)
    return shapes


def _layer(layer: Message, where: str) -> Message:
    enums = {name: enum for enum, name in V1_TYPE_NAMES.items()}
    if layer.type not in enums:
        raise UnsupportedError(
            f"{where}: layer {layer.name!r} has a type that V1 lacks; expected one of "
            f"{', '.join(sorted(filter(None, enums)))}, got {layer.type!r}; write the current form"
        )
    result = proto.V1LayerParameter()
    if layer.HasField("type"):
        result.type = proto.V1LayerParameter.LayerType.Value(enums[layer.type])
    for field, value in layer.ListFields():
        name = field.name
        if name in ("type", "phase"):
            continue
        if name == "param":
            _params(value, result)
        elif name not in result.DESCRIPTOR.fields_by_name:
            raise UnsupportedError(
                f"{where}: layer {layer.name!r} has a field that V1 lacks; expected fields of V1 "
                f"only, got {name}; remove it or write the current form"
            )
        elif proto.is_repeated(field):
            getattr(result, name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(result, name).CopyFrom(value)
        else:
            setattr(result, name, value)
    return result


def _params(params: Message, result: Message) -> None:
    """Spread ParamSpecs over V1's lists, each as long as the last one that says something."""
    for v1_name, name in PARAM_LISTS.items():
        said = [index for index, param in enumerate(params) if param.HasField(name)]
        if said:
            values = [getattr(param, name) for param in params[: said[-1] + 1]]
            getattr(result, v1_name).extend(values)
