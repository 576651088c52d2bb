"""Caffe's messages under the names of a generated module: `caffe_pb2.NetParameter()`.

They are the project's own, from its private descriptor pool, so that another caffe_pb2 can be
imported in the same process. The names are those that protoc generates: messages, enums and their
values, and descriptors such as `_LAYERPARAMETER` and `_POOLINGPARAMETER_POOLMETHOD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format  # noqa: F401  scripts use it without importing it
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from prototxt_gen import proto

DESCRIPTOR: Any = proto.BlobProto.DESCRIPTOR.file


def _descriptors(scope: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The descriptors of a file or a message, by protoc's names of them."""
    messages = getattr(scope, "message_types_by_name", None) or scope.nested_types_by_name
    for name, message in messages.items():
        yield f"{prefix}_{name.upper()}", message
        yield from _descriptors(message, f"{prefix}_{name.upper()}")
    for name, enum in scope.enum_types_by_name.items():
        yield f"{prefix}_{name.upper()}", enum


def _names() -> Iterator[tuple[str, Any]]:
    for name in proto.message_names():
        yield name, getattr(proto, name)
    for name, enum in DESCRIPTOR.enum_types_by_name.items():
        yield name, EnumTypeWrapper(enum)
        yield from ((value.name, value.number) for value in enum.values)
    yield from _descriptors(DESCRIPTOR, "")


globals().update(_names())


def __getattr__(name: str) -> Any:
    # For type checkers: the names above are defined at run time.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
