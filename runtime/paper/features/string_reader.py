"""A script that prints the strings of a file of features as JSON. See hdf5_features.

HDF5 may hang or overwrite memory when it reads damaged strings of variable length; this process can
be killed then.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

NAMES, ATTRIBUTES = "names", "attributes"
# Processor time of reading, which is a small part of it for undamaged files. Units: seconds, and
# bytes a second.
_SECONDS = 1
_BYTES_PER_SECOND = 1 << 20


def read_strings(path: str) -> dict[str, Any]:
    """Return the names in a file, and the attributes of its root."""
    import h5py

    _limit_processor_time(Path(path).stat().st_size)
    with h5py.File(path, "r") as file:
        return {
            NAMES: [_text(name) for name in file[NAMES][()].ravel()],
            ATTRIBUTES: {name: _plain(value) for name, value in file.attrs.items()},
        }


def _limit_processor_time(size: int) -> None:
    """Let the system end this process when it has read `size` bytes for too long."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    seconds = int(used) + _SECONDS + size // _BYTES_PER_SECOND
    if hard == resource.RLIM_INFINITY or seconds < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _plain(value: Any) -> Any:
    """Convert an attribute to a value that JSON supports."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _text(value) if isinstance(value, bytes) else value


if __name__ == "__main__":
    # Modules in the folder of this script must not hide others.
    sys.path.pop(0)
    json.dump(read_strings(sys.argv[1]), sys.stdout)
