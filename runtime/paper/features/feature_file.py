"""Files of features: HDF5 or .npz, chosen by the name.

Both contain `features` (N,D), `names` (N,), `labels` (N,) and `attributes`: a JSON object with
everything that the features depend on.
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
"""Attributes that a file must have."""


def check_feature_path(path: Path) -> None:
    """Check that a file name has a supported suffix.

    Raises:
        DataError: it has not.
    """
    if path.suffix not in HDF5 + NPZ:
        raise DataError(
            f"{path}: features are written to HDF5 or .npz files; expected a name that ends in "
            f"{', '.join(HDF5 + NPZ)}, got {path.suffix!r}; rename the file"
        )


def write_features(path: Path, features: Features) -> None:
    """Write features to a file, which is replaced.

    Raises:
        DataError: another suffix, a full disk, or a read-only folder.
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
        DataError: the file is missing, damaged or of another kind, or lacks attributes.
    """
    check_feature_path(path)
    read: Callable[[Path], Features] = _read_npz if path.suffix in NPZ else read_hdf5
    try:
        RegularFile(path).check()
        features = read(path)
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
            f"{path}: the features cannot be read: {reason}; expected a file that `verydeep "
            "features extract` wrote; extract them again"
        ) from cause
    rows, values = len(features.names), features.values
    missing = [name for name in _NEEDED if name not in features.attributes]
    fits = values.shape[:1] == features.labels.shape == (rows,) and values.ndim == 2
    if not fits or missing:
        fault = f"no attribute {', '.join(missing)}" if missing else "not a row for each name"
        raise DataError(
            f"{path}: features of shape {values.shape} for {rows} names, {fault}; expected (N,D) "
            "for N names, and the attributes of their extraction; extract them again"
        )
    return features


def _read_npz(path: Path) -> Features:
    arrays = read_arrays(path, "names", "features", "labels", "attributes")
    return Features(
        tuple(map(str, arrays["names"])),
        np.asarray(arrays["features"], np.float32),
        np.asarray(arrays["labels"], np.int64),
        dict(parse_json(str(arrays["attributes"]))),
    )
