"""Names of layers as parts of other files' names: the characters that such files hold."""

from __future__ import annotations


def is_plain(name: str) -> bool:
    """Whether a name is not empty, without NUL, and was UTF-8 where it was read."""
    return bool(name) and not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in name)
