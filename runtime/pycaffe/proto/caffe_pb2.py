"""Caffe's messages under the name that scripts know: `caffe_pb2.NetParameter()`.

They are the project's own, from its private descriptor pool, so any other caffe_pb2 may share the
process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from prototxt_gen import proto


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    schema = proto.BlobProto.DESCRIPTOR.file
    if name == "DESCRIPTOR":
        return schema
    if name in schema.enum_types_by_name:
        return EnumTypeWrapper(schema.enum_types_by_name[name])
    return getattr(proto, name)


def __dir__() -> Iterable[str]:
    return sorted({*globals(), *proto.message_names(), "Phase", "TRAIN", "TEST", "DESCRIPTOR"})
