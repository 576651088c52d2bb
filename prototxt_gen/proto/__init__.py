"""Caffe's messages, created from the caffe.proto in this folder at the first use.

They are in a separate descriptor pool, so that the process can load another caffe.proto. There is
no generated code: every protobuf from 4.21 on can be used.
"""

from __future__ import annotations

import functools
import importlib.resources
import threading
from collections.abc import Iterable
from typing import Any, TypeAlias

from google.protobuf import descriptor_pool, message_factory

from prototxt_gen.proto.schema import SCALARS, parse_schema

Message: TypeAlias = Any
"""A message of Caffe's schema; its fields are defined at run time."""

SCHEMA_FILE = "caffe.proto"
_LOCK = threading.Lock()
_TYPE_NAMES = {number: name for name, number in SCALARS.items()}


def schema_text() -> str:
    """The text of the installed caffe.proto."""
    return (importlib.resources.files(__name__) / SCHEMA_FILE).read_text(encoding="utf-8")


def copy_of(message: Message) -> Message:
    """A copy of a message of any schema."""
    result = type(message)()
    result.CopyFrom(message)
    return result


def message_names() -> tuple[str, ...]:
    """The names of the schema's top-level messages, in the order of the schema."""
    return tuple(_file().message_types_by_name)


def is_repeated(field: Any) -> bool:
    """Whether a field is repeated; newer versions of protobuf lack the field's label."""
    is_repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if is_repeated is None else is_repeated)


def type_name(field: Any) -> str:
    """The name in the schema of the type of a field that is neither message nor enum."""
    return _TYPE_NAMES[field.type]


def _pool() -> Any:
    # If two threads built the pool, their classes would not accept each other's messages.
    with _LOCK:
        return _build_pool()


@functools.cache
def _build_pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    schema = parse_schema(schema_text(), SCHEMA_FILE)
    pool.AddSerializedFile(schema.SerializeToString())
    return pool


def _file() -> Any:
    return _pool().FindFileByName(SCHEMA_FILE)


def _class_of(descriptor: Any) -> Any:
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return _old_factory().GetPrototype(descriptor)


@functools.cache
def _old_factory() -> Any:
    """The equivalent of GetMessageClass in protobuf 4.21."""
    return message_factory.MessageFactory(_pool())


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    schema = _file()
    if name in schema.message_types_by_name:
        value = _class_of(schema.message_types_by_name[name])
    elif name in schema.enum_types_by_name["Phase"].values_by_name:
        value = schema.enum_types_by_name["Phase"].values_by_name[name].number
    else:
        raise AttributeError(f"module {__name__!r} has no message or phase {name!r}")
    globals()[name] = value
    return value


def __dir__() -> Iterable[str]:
    return sorted({*globals(), *message_names(), "TRAIN", "TEST"})
