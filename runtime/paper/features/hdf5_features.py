"""Features in HDF5: data sets `features`, `names`, `labels` and `attributes` (JSON).

The attributes are also attributes of the root, for other programs. Names and JSON are strings of
fixed length, which HDF5 reads safely from damaged files. Strings of variable length, which other
programs write, are read in a separate process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.errors import DataError
from runtime.core.hdf5_file import (
    atomic_hdf5,
    check_numbers,
    find,
    holds_variable_strings,
    names_in,
    open_hdf5,
    read_strings,
    read_text,
    reading,
)
from runtime.paper.features import string_reader
from runtime.paper.features.extraction import Features

_TIMEOUT = 60.0
"""The time limit of reading strings of variable length. Units: seconds."""


def write_hdf5(path: Path, features: Features) -> None:
    """Write features to a file, which is replaced. See `feature_file.write_features`."""
    import h5py

    with atomic_hdf5(path, DataError) as file:
        file.create_dataset("features", data=features.values)
        _write_strings(file, "names", [_bytes(name) for name in features.names])
        file.create_dataset("labels", data=features.labels)
        _write_strings(file, "attributes", _bytes(json.dumps(features.attributes)))
        for name, value in features.attributes.items():
            if isinstance(value, str):
                file.attrs.create(name, _bytes(value), dtype=h5py.string_dtype())
            else:
                file.attrs[name] = value


def _write_strings(file: Any, name: str, values: bytes | list[bytes]) -> None:
    import h5py

    longest = max(map(len, [values] if isinstance(values, bytes) else values), default=0)
    dtype = h5py.string_dtype("utf-8", max(1, longest))
    file.create_dataset(name, data=np.array(values, dtype))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def read_hdf5(path: Path) -> Features:
    """Read what `write_hdf5` wrote.

    Raises:
        DataError: the file is missing, damaged or of another kind.
    """
    with open_hdf5(path, DataError) as file:
        with reading(str(path), DataError):
            sets = {name: find(file, name) for name in ("features", "labels", "names")}
            missing = [name for name, item in sets.items() if item is None]
            if missing:
                raise ValueError(f"no data set {missing[0]}; got {names_in(file)}")
            attributes = find(file, "attributes")
        for name in ("features", "labels"):
            check_numbers(sets[name], f"{path}: data set '{name}'", DataError)
        with reading(str(path), DataError):
            if attributes is None or holds_variable_strings(sets["names"]):
                names, attributes = _read_in_other_process(path)
            else:
                rows = read_strings(sets["names"]).reshape(-1).tolist()
                names = [row.decode("utf-8", "surrogateescape") for row in rows]
                attributes = json.loads(read_text(attributes))
            return Features(
                tuple(names),
                np.asarray(sets["features"][()], np.float32),
                np.asarray(sets["labels"][()], np.int64),
                dict(attributes),
            )


def _read_in_other_process(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the names and the attributes of a file with strings of any form.

    Raises:
        ValueError: the process fails or exceeds the time limit.
    """
    try:
        process = subprocess.run(
            [sys.executable, string_reader.__file__, str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except subprocess.TimeoutExpired as cause:
        raise ValueError(f"its strings could not be read in {_TIMEOUT:g} seconds") from cause
    except subprocess.CalledProcessError as cause:
        if cause.returncode == -signal.SIGXCPU:
            raise ValueError("reading its strings does not end; the file is damaged") from cause
        lines = cause.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(lines[-1] if lines else "its strings cannot be read") from cause
    strings = json.loads(process.stdout)
    return strings[string_reader.NAMES], strings[string_reader.ATTRIBUTES]
