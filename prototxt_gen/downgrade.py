"""Writes a current net in the V1 form, for programs as old as the released VGG nets."""

from __future__ import annotations

from prototxt_gen import proto
from prototxt_gen.errors import UnsupportedError
from prototxt_gen.proto import Message
from prototxt_gen.upgrade_v1 import PARAM_LISTS, V1_TYPE_NAMES

_LEGACY_AXES = 4
_INT32_MAX = 2**31 - 1
_MERGED = ("lr_mult", "decay_mult")
"""Fields of ParamSpec that must be equal in all layers that share a parameter and set them."""


def downgrade_v1(net: Message, where: str = "net") -> Message:
    """Return a new NetParameter with `layers { type: ENUM }` that upgrades to the same net.

    Input layers become the net's `input` with `input_dim`, or `input_shape` if a shape does not
    have four dimensions. A phase that all layers have is the phase of the net, and is left out.

    Raises:
        UnsupportedError: a layer has a type, a field or a value that V1 lacks, or the net is not of
            the current form.
    """
    if len(net.layers) or len(net.input):
        raise UnsupportedError(
            f"{where}: the net is of an older form already; expected layer {{ }} only, got layers "
            "or input; upgrade it first"
        )
    try:
        return _downgrade(net, where)
    except UnicodeError as cause:
        raise UnsupportedError(
            f"{where}: a name is not UTF-8 and has no V1 form here: {cause}; expected UTF-8; "
            "write the current form"
        ) from cause


def _downgrade(net: Message, where: str) -> Message:
    result = proto.NetParameter()
    _copy_fields(net, result, ("layer",))
    built_in = _common_phase(net)
    shapes: list[Message] = []
    for layer in net.layer:
        if not built_in and layer.HasField("phase"):
            raise _lacks_field(layer, "phase", where)
        if layer.type == "Input":
            shapes += _input(layer, result, where)
        else:
            result.layers.append(_layer(layer, where))
    if all(map(_fits_input_dim, shapes)):
        result.input_dim.extend(dim for shape in shapes for dim in shape.dim)
    else:
        result.input_shape.extend(shapes)
    return result


def _copy_fields(source: Message, target: Message, but: tuple[str, ...]) -> None:
    """Copy the fields that both messages have."""
    for field, value in source.ListFields():
        if field.name in but:
            continue
        if proto.is_repeated(field):
            getattr(target, field.name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _common_phase(net: Message) -> bool:
    """Whether all layers have the same phase, as Caffe writes it when it saves a net."""
    phases = {layer.phase if layer.HasField("phase") else None for layer in net.layer}
    return len(phases) == 1 and None not in phases


def _fits_input_dim(shape: Message) -> bool:
    return len(shape.dim) == _LEGACY_AXES and all(dim <= _INT32_MAX for dim in shape.dim)


def _lacks_field(layer: Message, name: str, where: str) -> UnsupportedError:
    return UnsupportedError(
        f"{where}: layer {layer.name!r} has a field that V1 lacks; expected fields of V1 only, "
        f"got {name}; remove it or write the current form"
    )


def _input(layer: Message, result: Message, where: str) -> list[Message]:
    """Add the layer's tops to the net's inputs, with a shape for each."""
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
    for field, _ in layer.ListFields():
        in_v1 = field.name in result.DESCRIPTOR.fields_by_name
        if not in_v1 and field.name not in ("phase", "param"):
            raise _lacks_field(layer, field.name, where)
    _copy_fields(layer, result, ("type", "phase", "param"))
    _params(layer, result, where)
    return result


def _params(layer: Message, result: Message, where: str) -> None:
    """Convert ParamSpecs to V1's lists, each up to the last ParamSpec that has its field.

    Raises:
        UnsupportedError: a list would set a rate of a shared parameter that its owner defines.
    """
    for v1_name, name in PARAM_LISTS.items():
        with_field = [index for index, param in enumerate(layer.param) if param.HasField(name)]
        if not with_field:
            continue
        params = layer.param[: with_field[-1] + 1]
        for index, param in enumerate(params):
            if param.name and name in _MERGED and not param.HasField(name):
                raise UnsupportedError(
                    f"{where}: layer {layer.name!r}: shared param {index} has no {name}, and param "
                    f"{with_field[-1]} has one, which V1 cannot express; expected {name} in both, "
                    f"got one; add {name} to param {index}"
                )
        getattr(result, v1_name).extend(getattr(param, name) for param in params)
