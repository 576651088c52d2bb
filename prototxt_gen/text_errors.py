"""Error messages for prototxt that does not parse."""

from __future__ import annotations

import difflib
import re
from typing import Any

from google.protobuf import text_format

from prototxt_gen.dialects import dialects_of_field, titles
from prototxt_gen.errors import ProtoError

_SHOWN = 80
_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]*)"')
_TWICE = re.compile(r'Message type "([\w.]+)" should not have multiple "([^"]*)" fields')
_UNKNOWN_ENUM = re.compile(r'Enum type "([\w.]+)" has no value (?:named|with number) "?([^".]*)')
_NUMBER = re.compile(r"Couldn't parse (integer|float): ?(.*)")
_RANGE = re.compile(r"Value out of range: ?(.*)")
_LONG_INTEGER = "integer string conversion"
_STRING = re.compile(r"Expected string but found: ?(.*)")
_EXPECTED = re.compile(r"Expected (.+?)(?:, got .*)?\.$")
_TOKEN = re.compile(r'"[^"\n]*"?|[\w.+-]+|\S')


def translate(cause: text_format.ParseError, text: str, descriptor: Any, where: str) -> ProtoError:
    """Convert an error of protobuf to the form `file:line:column: what; expected, got; advice`."""
    line = cause.GetLine() or 1
    column = cause.GetColumn() or 1
    lines = text.split("\n")
    content = lines[line - 1] if line <= len(lines) else ""
    complaint = re.sub(r"^\d+:\d+ : ", "", str(cause)).removeprefix(f"'{content}': ")
    token = _TOKEN.match(content, column - 1)
    if comment := _foreign_comment(content, column):
        return ProtoError(
            f"{where}:{line}:{column}: a comment with {comment}; expected comments that start with "
            f"#, got {comment!r}; write # instead"
        )
    got = _shown(token[0]) if token and not _ends_open(complaint) else "the end of the text"
    return ProtoError(f"{where}:{line}:{column}: {_explain(complaint, got, descriptor.file.pool)}")


def _foreign_comment(content: str, column: int) -> str:
    """The start of a C++ comment at a column of a line, or ''."""
    for start in ("//", "/*"):
        if content[column - 1 :].startswith(start) or content.lstrip().startswith(start):
            return start
    # The parser may stop at the second character.
    return "//" if content[max(column - 2, 0) :].startswith("//") else ""


def missing_fields(missing: list[str], where: str) -> ProtoError:
    """The error for required fields that are not given."""
    return ProtoError(
        f"{where}:1:1: required fields are missing; expected {', '.join(missing)}, got nothing "
        "for them; add them"
    )


def _ends_open(complaint: str) -> bool:
    # protobuf expects a closing brace only at the end of the text, and reports the last token.
    return complaint in ('Expected "}".', 'Expected ">".')


def _explain(complaint: str, got: str, pool: Any) -> str:
    if match := _UNKNOWN_FIELD.search(complaint):
        return _unknown_field(pool.FindMessageTypeByName(match[1]), match[2])
    if match := _UNKNOWN_ENUM.search(complaint):
        return _unknown_enum(pool.FindEnumTypeByName(match[1]), _shown(match[2]))
    if match := _TWICE.search(complaint):
        message = match[1].rpartition(".")[2]
        return (
            f"field {match[2]!r} of {message} is given twice; expected it once, "
            f"got it again; remove one of them"
        )
    if match := _NUMBER.search(complaint):
        kind = "an integer" if match[1] == "integer" else "a number"
        return f"not a number; expected {kind}, got {got}; correct the value"
    if _RANGE.search(complaint) or _LONG_INTEGER in complaint:
        return f"a number out of range; expected one that fits the field, got {got}; correct it"
    if _STRING.search(complaint):
        return f'not a string; expected text in quotes, got {got}; write it in quotes: "..."'
    if "codec can't" in complaint:
        return (
            "escapes that are not UTF-8; expected a string whose bytes are UTF-8, "
            f"got {got}; correct the escapes"
        )
    if "missing ending quote" in complaint:
        return f"a string without an end; expected a closing quote, got {got}; close the string"
    if match := _EXPECTED.match(complaint):
        expected = match[1].replace('"', "'")
        return f"unexpected text; expected {expected}, got {got}; check the braces and colons here"
    return f"unreadable text; expected prototxt, got {got} ({_shown(complaint)}); correct it"


def _unknown_field(message: Any, name: str) -> str:
    dialects = dialects_of_field(message.name, name)
    if dialects:
        return (
            f"{message.name} has no field {name!r} here; expected fields of the reference, got one "
            f"of {titles(dialects)}, which is not supported; remove it if the net does not need it"
        )
    fields = [field.name for field in message.fields]
    nearest = difflib.get_close_matches(name, fields, n=3, cutoff=0.5)
    expected = " or ".join(repr(near) for near in nearest) or "one of " + ", ".join(fields[:12])
    return (
        f"{message.name} has no field {_shown(name)!r}; expected {expected}, "
        f"got {_shown(name)!r}; correct the name or remove it"
    )


def _unknown_enum(enum: Any, name: str) -> str:
    values = [value.name for value in enum.values]
    nearest = difflib.get_close_matches(name.upper(), values, n=3, cutoff=0.5)
    expected = " or ".join(nearest or values)
    hint = "write one of them, without quotes"
    if enum.full_name == "caffe.V1LayerParameter.LayerType":
        hint += "; a type in quotes belongs in layer { }, not in layers { }"
    return f"{enum.name} has no value {name}; expected {expected}, got {name}; {hint}"


def _shown(text: str) -> str:
    """The text, shortened, with escapes for characters that do not print."""
    short = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return short if short.isprintable() else ascii(short)[1:-1]
