"""Files of features: HDF5 or .npz, told by the name.

Both have `features` (N,D), `names` (N,), `labels` (N,), and `attributes`: all that the features
depend on, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from prototxt_gen.reading import parse_json
from prototxt_gen.regular_file import RegularFile
from runtime.core.npz_arrays import read_arrays
from runtime.paper.features.extraction import Features
from runtime.paper.features.hdf5_features import read_hdf5, write_hdf5

HDF5, NPZ = (".h5", ".hdf5"), (".npz",)
_NEEDED = ("net", "weights_sha256", "scales", "aggregate", "flip", "layer", "regions")
"""Without these attributes nobody could say what the numbers are."""


def check_feature_path(path: Path) -> None:
    """Refuse a name that is of neither form.

    Raises:
        DataError: it is.
    """
    if path.suffix not in HDF5 + NPZ:
        raise DataError(
            f"{path}: features go into HDF5 or .npz files; expected a name that ends in "
            f"{', '.join(HDF5 + NPZ)}, got {path.suffix!r}; rename it"
        )


def write_features(path: Path, features: Features) -> None:
    """Write a file that replaces the one at `path`.

    Raises:
        DataError: another ending, a full disk, or a folder that is read-only.
    """
    check_feature_path(path)
    if path.suffix in NPZ:
        with atomic_write(path, "wb", DataError) as stream:
            np.savez(
                stream,
                features=features.values,
                names=np.array(features.names, dtype=np.str_),
                labels=features.labels,
                attributes=np.array(json.dumps(features.attributes)),
            )
        return
    write_hdf5(path, features)


def read_features(path: Path) -> Features:
    """Read what `write_features` wrote.

    Raises:
        DataError: the file is missing, damaged, of another kind, or says not what it is of.
    """
    check_feature_path(path)
    read: Callable[[Path], Features] = _read_npz if path.suffix in NPZ else read_hdf5
    try:
        RegularFile(path).check()
        found = read(path)
    except (
        DataError,
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        TypeError,
        AttributeError,
    ) as cause:
        reason = str(cause).removeprefix(f"{path}: ")
        raise DataError(
            f"{path}: no features can be read: {reason}; expected a file that `verydeep features "
            "extract` wrote; extract them again"
        ) from cause
    rows = len(found.names)
    missing = [name for name in _NEEDED if name not in found.attributes]
    fits = found.values.shape[:1] == found.labels.shape == (rows,) and found.values.ndim == 2
    if not fits or missing:
        what = f"no attribute {', '.join(missing)}" if missing else "not a row for each name"
        raise DataError(
            f"{path}: features of shape {found.values.shape} for {rows} names, {what}; expected "
            "(N,D) for N names, and how they were made; extract them again"
        )
    return found


def _read_npz(path: Path) -> Features:
    found = read_arrays(path, "names", "features", "labels", "attributes")
    return Features(
        tuple(map(str, found["names"])),
        np.asarray(found["features"], np.float32),
        np.asarray(found["labels"], np.int64),
        dict(parse_json(str(found["attributes"]))),
    )
