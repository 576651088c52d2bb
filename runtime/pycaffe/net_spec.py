"""NetSpec under pycaffe's module name. Caffe: net_spec.py."""

from __future__ import annotations

from typing import Any

from prototxt_gen import netspec, proto
from prototxt_gen.netspec import (
    Function,
    Layers,
    NetSpec,
    Parameters,
    Top,
    layers,
    params,
    to_proto,
)
from prototxt_gen.proto import Message
from runtime.pycaffe.errors import FieldError

__all__ = [
    "Function",
    "Layers",
    "NetSpec",
    "Parameters",
    "Top",
    "assign_proto",
    "layers",
    "param_name_dict",
    "params",
    "to_proto",
]


def assign_proto(proto: Message, name: str, val: Any) -> None:
    """Set a field of a message: dicts become messages, lists repeated fields, also of one value.

    Raises:
        FieldError: the message has no such field; also an AttributeError.
        ProtoError: the value does not fit the field.
    """
    subject = f"{proto.DESCRIPTOR.name}.{name}"
    if name not in proto.DESCRIPTOR.fields_by_name:
        raise FieldError(
            f"assign_proto: {subject}: no such field; expected one of "
            f"{', '.join(proto.DESCRIPTOR.fields_by_name)}; correct the name"
        )
    netspec.assign_proto(proto, name, val, subject)


def param_name_dict() -> dict[str, str]:
    """The parameter of each layer type without its ending: `{"Convolution": "convolution"}`.

    Parameters that are no layer's, such as transform_param, are listed as well.
    """
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in proto.LayerParameter.DESCRIPTOR.fields
        if field.name.endswith("_param")
    }
