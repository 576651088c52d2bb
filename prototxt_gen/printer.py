"""Prints canonical prototxt: the text of a net does not depend on the version of protobuf.

The printers of protobuf write 1 or 1.0 depending on version and implementation, but files that are
compared, hashed or under version control need one form. Fields are in the order of the schema.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from prototxt_gen.proto import Message, is_repeated

INDENT = "  "
# Octal always has three digits: hexadecimal would swallow a digit that follows it.
_ESCAPES = {code: f"\\{code:03o}" for code in (*range(32), 127)}
_ESCAPES |= {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}
_BYTE_ESCAPES = _ESCAPES | {code: f"\\{code:03o}" for code in range(128, 256)}


def to_text(message: Message) -> str:
    """The message as prototxt with an indent of two spaces and a final newline; "" if it is empty.

    Floats have the fewest digits that read back as the same float32: 0.0005, not 0.000500000024.
    Each item of a repeated field has its own line, as in Caffe.
    """
    lines: list[str] = []
    _print(message, "", lines)
    return "".join(lines)


def shortest_float(value: float) -> str:
    """The fewest digits that read back as the same float32, without a final ".0"."""
    if not math.isfinite(value):
        return str(value)
    # 9 significant digits always identify a float32.
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if _same_float32(short, value):
            return shortest_double(short)
    return shortest_double(value)


def shortest_double(value: float) -> str:
    """The fewest digits that read back as the same double, without a final ".0"."""
    return repr(value).removesuffix(".0")


def _same_float32(short: float, value: float) -> bool:
    try:
        return struct.pack("<f", short) == struct.pack("<f", value)
    except OverflowError:
        # The largest floats, rounded to few digits, exceed the range of float32.
        return False


def _print(message: Message, indent: str, lines: list[str]) -> None:
    # ListFields sorts by number, which would print a solver's `net` after its schedule.
    for field, value in sorted(message.ListFields(), key=lambda item: int(item[0].index)):
        for item in value if is_repeated(field) else (value,):
            if field.message_type is not None:
                lines.append(f"{indent}{field.name} {{\n")
                _print(item, indent + INDENT, lines)
                lines.append(f"{indent}}}\n")
            else:
                lines.append(f"{indent}{field.name}: {_scalar(field, item)}\n")


def _scalar(field: Any, value: Any) -> str:
    if field.type == field.TYPE_FLOAT:
        return shortest_float(value)
    if field.type == field.TYPE_DOUBLE:
        return shortest_double(value)
    if field.type == field.TYPE_BOOL:
        return "true" if value else "false"
    if field.type == field.TYPE_ENUM:
        return str(field.enum_type.values_by_number[value].name)
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        characters = value if isinstance(value, str) else value.decode("latin-1")
        escapes = _ESCAPES if isinstance(value, str) else _BYTE_ESCAPES
        return f'"{characters.translate(escapes)}"'
    return str(value)
