"""Cached posteriors: one file for each net and scale, named by everything it depends on.

Fusions and tables are averages of these files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from data_prep.read_plan import RecordSource
from prototxt_gen.errors import DataError, SnapshotError
from prototxt_gen.files import atomic_write, atomic_write_text
from prototxt_gen.reading import read_text
from runtime.core.npz_arrays import read_arrays
from runtime.evaluate.fusion import Posteriors
from runtime.evaluate.image_source import fingerprint

Array = npt.NDArray[Any]
_CHUNK = 1 << 20
_NAME_DIGITS = 32
_CHECKSUM = re.compile("[0-9a-f]{64}")
_MOST_NOTE = 1 << 10


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file of weights.

    Raises:
        SnapshotError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as cause:
        raise SnapshotError(
            f"{path}: the weights cannot be read: {cause.strerror}; expected a file of weights; "
            "check the path"
        ) from cause
    return digest.hexdigest()


@dataclass(frozen=True)
class ArrayCache:
    """A folder of computed arrays."""

    folder: Path
    content: ClassVar[str] = "arrays"
    """The name of the arrays in messages."""

    def path(self, key: dict[str, Any]) -> Path:
        """Return the path of the arrays of a key."""
        digest = hashlib.sha256(_canonical(key).encode()).hexdigest()
        return self.folder / f"{digest[:_NAME_DIGITS]}.npz"

    def load_arrays(self, key: dict[str, Any], *names: str) -> tuple[Array, ...] | None:
        """Return the arrays of a key, None if they are not cached.

        Shapes: the first (N,D), of floats; the others (N,), of integers.

        Raises:
            DataError: the file is damaged or belongs to another key.
        """
        path = self.path(key)
        if not path.exists():
            return None
        try:
            stored = read_arrays(path, "key", *names)
        except (OSError, ValueError) as cause:
            raise self._damaged(path, str(cause)) from cause
        if str(stored["key"]) != _canonical(key):
            raise self._damaged(path, f"it contains {self.content} of another evaluation")
        arrays = tuple(stored[name] for name in names)
        if not _is_table(arrays):
            shapes = ", ".join(f"{array.shape} of {array.dtype}" for array in arrays)
            raise self._damaged(path, f"arrays of the shapes {shapes}")
        return arrays

    def store_arrays(self, key: dict[str, Any], **arrays: Array) -> Path:
        """Write arrays to the cache; return the path."""
        path = self.path(key)
        with atomic_write(path, "wb", DataError) as stream:
            named: dict[str, Any] = {"key": np.array(_canonical(key)), **arrays}
            np.savez(stream, **named)
        return path

    def data_fingerprint(self, path: Path, source: RecordSource, count: int) -> str:
        """Return the checksum of a source; it is recomputed only if the database changed."""
        file = path / "data.mdb"
        if not file.is_file():
            return fingerprint(source, count)
        status = file.stat()
        name = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}|{count}"
        note = self.folder / f"data-{hashlib.sha256(name.encode()).hexdigest()[:_NAME_DIGITS]}.txt"
        if (checksum := _read_note(note)) is not None:
            return checksum
        checksum = fingerprint(source, count)
        atomic_write_text(note, checksum + "\n", DataError)
        return checksum

    def _damaged(self, path: Path, reason: str) -> DataError:
        return DataError(
            f"{path}: the {self.content} cannot be read: {reason}; expected a file that an "
            "evaluation wrote; delete the file to compute them again"
        )


@dataclass(frozen=True)
class PosteriorCache(ArrayCache):
    """A folder of posteriors."""

    content: ClassVar[str] = "posteriors"

    def load(self, key: dict[str, Any]) -> Posteriors | None:
        """Return the posteriors of a key, None if they are not cached. See `load_arrays`."""
        arrays = self.load_arrays(key, "values", "labels")
        return None if arrays is None else Posteriors(*arrays)

    def store(self, key: dict[str, Any], posteriors: Posteriors) -> Path:
        """Write posteriors to the cache; return the path."""
        return self.store_arrays(key, values=posteriors.values, labels=posteriors.labels)


def _is_table(arrays: tuple[Array, ...]) -> bool:
    values, *others = arrays
    return (
        values.ndim == 2
        and values.dtype.kind == "f"
        and all(array.shape == values.shape[:1] and array.dtype.kind == "i" for array in others)
    )


def _read_note(note: Path) -> str | None:
    """Return the checksum in a file, None if the file is missing or damaged."""
    try:
        text = read_text(note, _MOST_NOTE).strip()
    except (OSError, ValueError):
        return None
    return text if _CHECKSUM.fullmatch(text) else None


def _canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
