"""Reads text, JSON and numbers from files of any content."""

from __future__ import annotations

import errno
import json
import os
import re
import reprlib
import stat
from typing import Any

MOST_TEXT = 1 << 26
"""The most bytes of a text file; logs and lists of millions of lines are smaller."""
_CHUNK = 1 << 20
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_LIMIT = 1 << 63


def read_bytes(path: str | os.PathLike[str], most: int = MOST_TEXT, regular: bool = False) -> bytes:
    """Read a file of at most `most` bytes; with `regular`, devices and pipes are errors.

    Raises:
        OSError: the file cannot be read or is too large, or the name is impossible.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if regular else 0)
    try:
        handle = os.open(path, flags)
    except ValueError as cause:
        raise OSError(errno.EINVAL, f"no file can have this name ({cause})") from cause
    with os.fdopen(handle, "rb", buffering=0) as stream:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if regular and not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "a device or a pipe, and no regular file")
        parts: list[bytes] = []
        size = 0
        while part := stream.read(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > most:
                raise OSError(errno.EFBIG, f"larger than the {most} bytes that are read")
    return b"".join(parts)


def read_text(
    path: str | os.PathLike[str],
    most: int = MOST_TEXT,
    errors: str = "strict",
    regular: bool = False,
) -> str:
    """Read a UTF-8 file; see `read_bytes`.

    Raises:
        UnicodeDecodeError: the file is not UTF-8, unless `errors` permits it.
    """
    return read_bytes(path, most, regular).decode(errors=errors)


def read_json(path: str | os.PathLike[str], most: int = MOST_TEXT, regular: bool = False) -> Any:
    """Read the value in a JSON file; see `read_bytes` and `parse_json`."""
    return parse_json(read_text(path, most, regular=regular))


def parse_json(text: str) -> Any:
    """Parse a JSON text; a byte order mark is ignored.

    Raises:
        ValueError: it is not JSON or is nested too deeply, or an integer exceeds 64 bits.
    """
    try:
        return json.loads(text.removeprefix("\ufeff"), parse_int=_json_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _json_integer(text: str) -> int:
    value = parse_integer(text)
    if value is None:
        raise ValueError(f"an integer of {len(text)} digits; at most 64 bits are read")
    return value


def parse_integer(text: str) -> int | None:
    """Parse a decimal integer; None if the text is not one of 64 bits."""
    text = text.strip()
    value = int(text) if _INTEGER.fullmatch(text) else _LIMIT
    return value if -_LIMIT <= value < _LIMIT else None


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 32
        self.maxstring = self.maxother = 200

    def repr_int(self, value: int, level: int) -> str:
        if -_LIMIT <= value < _LIMIT:
            return repr(value)
        return f"an integer of {value.bit_length()} bits"


def short_repr(value: object, longest: int = 60) -> str:
    """The repr of a value, truncated to `longest` characters, in a time independent of its size."""
    text = _Short().repr(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
