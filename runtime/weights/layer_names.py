"""Names of layers in HDF5 and .npz files."""

from __future__ import annotations


def is_plain(name: str) -> bool:
    """Whether a name is not empty and is UTF-8 without NUL.

    Bytes that were not UTF-8 were decoded to surrogates.
    """
    return bool(name) and not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in name)
