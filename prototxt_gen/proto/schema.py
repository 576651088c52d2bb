"""Parses the part of proto2's grammar that caffe.proto uses into a file descriptor.

Parsing the schema at run time avoids generated code, which requires a certain protobuf version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf import descriptor_pb2

from prototxt_gen.errors import ProtoError

_FIELD = descriptor_pb2.FieldDescriptorProto
_LABELS = {
    "optional": _FIELD.LABEL_OPTIONAL,
    "repeated": _FIELD.LABEL_REPEATED,
    "required": _FIELD.LABEL_REQUIRED,
}
SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
}
_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/)|(?P<word>[-+]?\w[\w.+-]*|"[^"\n]*")|(?P<mark>[{}=;\[\],])""",
    re.DOTALL,
)


class _Token(NamedTuple):
    text: str
    line: int


class _Declared(NamedTuple):
    """A field whose type is a name, which is resolved when all types of the file are parsed."""

    field: descriptor_pb2.FieldDescriptorProto
    scope: str
    token: _Token


def parse_schema(text: str, where: str) -> descriptor_pb2.FileDescriptorProto:
    """Parse a proto2 schema into the descriptor of a file named `where`.

    Raises:
        ProtoError: the text is not proto2, or uses an unsupported part of it.
    """
    return _Parser(text, where).file()


def _tokens(text: str, where: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ProtoError(
                f"{where}:{line}: unreadable schema; expected a name, a number or one of {{}}=;[], "
                f"got {text[position]!r}; reinstall the package or correct the schema"
            )
        if match["skip"] is None:
            yield _Token(match[0], line)
        line += match[0].count("\n")
        position = match.end()
    yield _Token("", line)


class _Parser:
    """Recursive descent over the tokens, with one method per construct."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._tokens = _tokens(text, where)
        self._token = next(self._tokens)
        self._types: dict[str, int] = {}
        self._declared: list[_Declared] = []

    def file(self) -> descriptor_pb2.FileDescriptorProto:
        result = descriptor_pb2.FileDescriptorProto(name=self._where, syntax="proto2")
        self._expect("syntax", "=", '"proto2"', ";")
        self._expect("package")
        result.package = self._take()
        self._expect(";")
        scope = f".{result.package}"
        while self._token.text:
            keyword = self._take()
            if keyword == "message":
                self._message(result.message_type.add(), scope)
            elif keyword == "enum":
                self._enum(result.enum_type.add(), scope)
            else:
                raise self._error("'message' or 'enum'", keyword)
        for declared in self._declared:
            self._resolve(declared)
        return result

    def _message(self, message: descriptor_pb2.DescriptorProto, scope: str) -> None:
        message.name = self._take()
        scope = f"{scope}.{message.name}"
        self._types[scope] = _FIELD.TYPE_MESSAGE
        self._expect("{")
        while self._token.text != "}":
            keyword = self._take()
            if keyword == "enum":
                self._enum(message.enum_type.add(), scope)
            elif keyword == "message":
                self._message(message.nested_type.add(), scope)
            elif keyword in _LABELS:
                self._field(message.field.add(label=_LABELS[keyword]), scope)
            else:
                raise self._error("a label, 'enum', 'message' or '}'", keyword)
        self._expect("}")

    def _enum(self, enum: descriptor_pb2.EnumDescriptorProto, scope: str) -> None:
        enum.name = self._take()
        self._types[f"{scope}.{enum.name}"] = _FIELD.TYPE_ENUM
        self._expect("{")
        while self._token.text != "}":
            value = enum.value.add(name=self._take())
            self._expect("=")
            value.number = self._number()
            self._expect(";")
        self._expect("}")

    def _field(self, field: descriptor_pb2.FieldDescriptorProto, scope: str) -> None:
        kind = self._token
        self._take()
        if kind.text in SCALARS:
            field.type = SCALARS[kind.text]
        else:
            self._declared.append(_Declared(field, scope, kind))
        field.name = self._take()
        self._expect("=")
        field.number = self._number()
        if self._token.text == "[":
            self._options(field)
        self._expect(";")

    def _options(self, field: descriptor_pb2.FieldDescriptorProto) -> None:
        separator = self._take()
        while separator != "]":
            name = self._take()
            self._expect("=")
            value = self._take()
            if name == "default":
                field.default_value = value[1:-1] if value.startswith('"') else value
            elif name in ("packed", "deprecated"):
                setattr(field.options, name, value == "true")
            else:
                raise self._error("the option default, packed or deprecated", name)
            separator = self._take()
            if separator not in (",", "]"):
                raise self._error("',' or ']'", separator)

    def _resolve(self, declared: _Declared) -> None:
        scope = declared.scope
        while scope:
            name = f"{scope}.{declared.token.text}"
            if name in self._types:
                declared.field.type = self._types[name]
                declared.field.type_name = name
                return
            scope = scope.rpartition(".")[0]
        self._token = declared.token
        raise self._error("a message, an enum or a scalar type", declared.token.text)

    def _take(self) -> str:
        taken = self._token
        if not taken.text:
            raise self._error("more text", "the end of the schema")
        self._token = next(self._tokens)
        return taken.text

    def _expect(self, *texts: str) -> None:
        for text in texts:
            if self._token.text != text:
                raise self._error(repr(text), self._token.text or "the end of the schema")
            self._take()

    def _number(self) -> int:
        text = self._take()
        if not re.fullmatch(r"-?\d+", text):
            raise self._error("a number", text)
        return int(text)

    def _error(self, expected: str, got: str) -> ProtoError:
        return ProtoError(
            f"{self._where}:{self._token.line}: unreadable schema; expected {expected}, "
            f"got {got!r}; reinstall the package or correct the schema"
        )
