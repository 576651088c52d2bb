"""Prints the strings of a file of features as JSON, in a process of its own.

HDF5 may not end, or may overwrite memory, where strings of variable length are damaged: a process
that does can be given up. See hdf5_features.
"""

from __future__ import annotations

import json
import sys
from typing import Any

NAMES, ATTRIBUTES = "names", "attributes"


def read_strings(path: str) -> dict[str, Any]:
    """The names of a file, and the attributes of its root."""
    import h5py

    with h5py.File(path, "r") as file:
        return {
            NAMES: [_text(name) for name in file[NAMES][()].ravel()],
            ATTRIBUTES: {name: _plain(value) for name, value in file.attrs.items()},
        }


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _plain(value: Any) -> Any:
    """An attribute as JSON has it."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return _text(value) if isinstance(value, bytes) else value


if __name__ == "__main__":
    # The folder of this script is no place to import from.
    sys.path.pop(0)
    json.dump(read_strings(sys.argv[1]), sys.stdout)
