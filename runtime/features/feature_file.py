"""Files of features: HDF5 or .npz, told by the name.

HDF5 has the datasets `features` (N,D), `names` (N,) and `labels` (N,), and all that the features
depend on as attributes of the root; .npz has the three arrays, and `attributes` as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from prototxt_gen.reading import parse_json
from runtime.features.extraction import Features
from runtime.hdf5_weights import atomic_hdf5
from runtime.npz_arrays import read_arrays

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
    import h5py

    with atomic_hdf5(path, DataError) as file:
        file.create_dataset("features", data=features.values)
        names = [name.encode() for name in features.names]
        file.create_dataset("names", data=names, dtype=h5py.string_dtype())
        file.create_dataset("labels", data=features.labels)
        for name, value in features.attributes.items():
            file.attrs[name] = value


def read_features(path: Path) -> Features:
    """Read what `write_features` wrote.

    Raises:
        DataError: the file is missing, damaged, of another kind, or says not what it is of.
    """
    check_feature_path(path)
    read: Callable[[Path], Features] = _read_npz if path.suffix in NPZ else _read_hdf5
    try:
        found = read(path)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as cause:
        raise DataError(
            f"{path}: no features can be read: {cause}; expected a file that `verydeep features "
            "extract` wrote; extract them again"
        ) from cause
    rows = len(found.names)
    missing = [name for name in _NEEDED if name not in found.attributes]
    fit = found.values.ndim == 2 and found.values.shape[:1] == found.labels.shape == (rows,)
    if not fit or missing:
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


def _read_hdf5(path: Path) -> Features:
    import h5py

    with h5py.File(path, "r") as file:
        return Features(
            tuple(name.decode() for name in file["names"][()]),
            np.asarray(file["features"][()], np.float32),
            np.asarray(file["labels"][()], np.int64),
            {name: _plain(value) for name, value in file.attrs.items()},
        )


def _plain(value: Any) -> Any:
    """An attribute as Python's own type."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
