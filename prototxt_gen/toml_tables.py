"""Reads TOML by typed keys, and writes it so that equal values give equal bytes.

A key that is not read is an error, so that a misspelt key is not silently ignored.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prototxt_gen.destination import current_folder
from prototxt_gen.errors import ProtoError
from prototxt_gen.reading import read_text, short_repr

_LIMIT = 1 << 63
_MOST_BYTES = 1 << 20
_MOST_DOTS = 1000
_LONG_DIGITS = re.compile(r"(?<![0-9A-Fa-f_])[0-9A-Fa-f_]{1001}")


class Table:
    """One table of a TOML file; its errors contain the file and the key.

    A missing key has its default. Values of the wrong kind raise ProtoError.
    """

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = "") -> None:
        self.where = where
        self.prefix = prefix
        self._values = values
        self._known: dict[str, None] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def raw(self, key: str) -> Any:
        """The value of a key as TOML gives it, or None; marks the key as read."""
        self._known[key] = None
        return self._values.get(key)

    def integer(self, key: str, default: int) -> int:
        value = self.optional_integer(key)
        return default if value is None else value

    def optional_integer(self, key: str, default: int | None = None) -> int | None:
        value: int | None = self._of_kind(key, is_integer, "an integer")
        return default if value is None else value

    def number(self, key: str, default: float) -> float:
        value = self._of_kind(key, is_number, "a finite number")
        return default if value is None else float(value)

    def optional_number(self, key: str) -> float | None:
        value = self._of_kind(key, is_number, "a finite number")
        return None if value is None else float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value: bool | None = self._of_kind(key, _is_boolean, "true or false")
        return default if value is None else value

    def text(self, key: str, default: str) -> str:
        value = self.optional_text(key)
        return default if value is None else value

    def optional_text(self, key: str, default: str | None = None) -> str | None:
        value: str | None = self._of_kind(key, is_text, "a string in quotes")
        return default if value is None else value

    def integers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self._list_of(key, is_integer, "a list of integers")
        return default if value is None else tuple(value)

    def numbers(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = self._list_of(key, is_number, "a list of numbers")
        return default if value is None else tuple(map(float, value))

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self._list_of(key, is_text, "a list of strings")
        return default if value is None else tuple(value)

    def rows(self, key: str, kind: Callable[[object], bool], expected: str) -> list[list[Any]]:
        """A list of lists; empty if the key is missing."""
        value = self._list_of(
            key, lambda row: isinstance(row, list) and all(map(kind, row)), expected
        )
        return value or []

    def table(self, key: str) -> Table:
        """The table of a key; empty if the key is missing."""
        value = self._of_kind(key, lambda item: isinstance(item, dict), "a table")
        return Table(value or {}, self.where, f"{self.prefix}{key}.")

    def _of_kind(self, key: str, kind: Callable[[object], bool], expected: str) -> Any:
        value = self.raw(key)
        if value is not None and not kind(value):
            raise self.error(key, expected, value)
        return value

    def _list_of(self, key: str, kind: Callable[[object], bool], expected: str) -> Any:
        return self._of_kind(
            key, lambda value: isinstance(value, list) and all(map(kind, value)), expected
        )

    def error(self, key: str, expected: str, got: object) -> ProtoError:
        """The error for a missing value or a value of the wrong kind."""
        problem = "missing" if got is None else "of the wrong kind"
        return ProtoError(
            f"{self.where}: {self.prefix}{key}: {problem}; expected {expected}, "
            f"got {shown(got)}; {'add the key' if got is None else 'correct the value'}"
        )

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Prefix errors of the block, which begin with a key, with the file and this table.

        Raises:
            ProtoError: the block raised one.
        """
        try:
            yield
        except ProtoError as error:
            raise ProtoError(f"{self.where}: {self.prefix}{error}") from error

    def close(self) -> None:
        """Check that all keys of the file were read.

        Raises:
            ProtoError: a key is unknown; the message contains the most similar known key.
        """
        for key in self._values:
            if key in self._known:
                continue
            near = difflib.get_close_matches(key, self._known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else "remove it"
            raise ProtoError(
                f"{self.where}: {self.prefix}{key}: unknown key; expected one of "
                f"{', '.join(self._known)}, got {key!r}; {hint}"
            )


def is_integer(value: object) -> bool:
    """Whether a value is an integer of 64 bits, as in TOML."""
    return isinstance(value, int) and not isinstance(value, bool) and -_LIMIT <= value < _LIMIT


def is_number(value: object) -> bool:
    """Whether a value is a finite number in the range of a float."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool)


def shown(value: object) -> str:
    """A value for an error message: shortened, and in the syntax of TOML."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else short_repr(value)


def read_toml(path: str | os.PathLike[str]) -> Table:
    """Read the root table of a TOML file.

    Raises:
        ProtoError: the file cannot be read or is not TOML; the message has line and column.
    """
    try:
        text = read_text(path, _MOST_BYTES)
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise ProtoError(
            f"{path}: cannot be read: {reason}; expected a TOML file in UTF-8; "
            f"check the path (the current folder is {current_folder()})"
        ) from cause
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> Table:
    """Parse the root table of a TOML text.

    Raises:
        ProtoError: it is not TOML; the message has line and column.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        _refuse_endless(text)
        return Table(tomllib.loads(text), where)
    except (ValueError, RecursionError) as cause:
        reason = "nested too deeply" if isinstance(cause, RecursionError) else cause
        raise ProtoError(
            f"{where}: this is not TOML: {reason}; expected lines such as 'crop = 224' and "
            "'[solver]'; change that line"
        ) from cause


def _refuse_endless(text: str) -> None:
    """Check the numbers and dotted keys, in whose length the time of the parser is quadratic.

    Raises:
        ValueError: one is too long; the message contains the line.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:
            raise ValueError(f"more than {_MOST_DOTS} dots (at line {number})")
        if _LONG_DIGITS.search(line):
            raise ValueError(f"more than 1000 digits in a row (at line {number})")


def toml_value(value: object) -> str:
    """A value in the syntax of TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    # The escapes of JSON are valid in TOML, which also requires an escape for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_lines(values: Iterable[tuple[str, object]]) -> list[str]:
    """Lines `key = value`; keys whose value is None are omitted."""
    return [f"{key} = {toml_value(value)}" for key, value in values if value is not None]
