"""Posteriors on disk, filed under all that decides them, so that no evaluation costs twice.

A file holds the posteriors of one net at one scale; fusions and tables are averages of such files.
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
    """The checksum of a file of weights.

    Raises:
        SnapshotError: it cannot be read.
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
    """A folder of arrays that one computation or another gave."""

    folder: Path
    what: ClassVar[str] = "arrays"
    """What messages call them."""

    def path(self, key: dict[str, Any]) -> Path:
        """Where the arrays of a key lie."""
        digest = hashlib.sha256(_canonical(key).encode()).hexdigest()
        return self.folder / f"{digest[:_NAME_DIGITS]}.npz"

    def load_arrays(self, key: dict[str, Any], *names: str) -> tuple[Array, ...] | None:
        """The arrays of a key, if they were computed before.

        Shapes: the first (N,D), of floats; the others (N,), of integers.

        Raises:
            DataError: a file is there and is not whole, or belongs to another key.
        """
        path = self.path(key)
        if not path.exists():
            return None
        try:
            found = read_arrays(path, "key", *names)
        except (OSError, ValueError) as cause:
            raise self._damaged(path, str(cause)) from cause
        if str(found["key"]) != _canonical(key):
            raise self._damaged(path, f"it holds the {self.what} of something else")
        arrays = tuple(found[name] for name in names)
        if not _is_table(arrays):
            shapes = ", ".join(f"{each.shape} of {each.dtype}" for each in arrays)
            raise self._damaged(path, f"arrays of the shapes {shapes}")
        return arrays

    def store_arrays(self, key: dict[str, Any], **arrays: Array) -> Path:
        """Keep arrays for next time."""
        path = self.path(key)
        with atomic_write(path, "wb", DataError) as stream:
            named: dict[str, Any] = {"key": np.array(_canonical(key)), **arrays}
            np.savez(stream, **named)
        return path

    def data_fingerprint(self, path: Path, source: RecordSource, count: int) -> str:
        """The checksum of a source, computed again only where its file changed."""
        file = path / "data.mdb"
        if not file.is_file():
            return fingerprint(source, count)
        status = file.stat()
        name = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}|{count}"
        note = self.folder / f"data-{hashlib.sha256(name.encode()).hexdigest()[:_NAME_DIGITS]}.txt"
        if (checksum := _noted(note)) is not None:
            return checksum
        found = fingerprint(source, count)
        atomic_write_text(note, found + "\n", DataError)
        return found

    def _damaged(self, path: Path, why: str) -> DataError:
        return DataError(
            f"{path}: no {self.what} can be read: {why}; expected what an evaluation wrote; "
            "delete the file, and they are computed again"
        )


@dataclass(frozen=True)
class PosteriorCache(ArrayCache):
    """A folder of posteriors."""

    what: ClassVar[str] = "posteriors"

    def load(self, key: dict[str, Any]) -> Posteriors | None:
        """The posteriors of a key, if they were computed before. See `load_arrays`."""
        found = self.load_arrays(key, "values", "labels")
        return None if found is None else Posteriors(*found)

    def store(self, key: dict[str, Any], posteriors: Posteriors) -> Path:
        """Keep posteriors for next time."""
        return self.store_arrays(key, values=posteriors.values, labels=posteriors.labels)


def _is_table(arrays: tuple[Array, ...]) -> bool:
    values, *others = arrays
    return (
        values.ndim == 2
        and values.dtype.kind == "f"
        and all(each.shape == values.shape[:1] and each.dtype.kind == "i" for each in others)
    )


def _noted(note: Path) -> str | None:
    """The checksum in a file, where it is there and whole."""
    try:
        text = read_text(note, _MOST_NOTE).strip()
    except (OSError, ValueError):
        return None
    return text if _CHECKSUM.fullmatch(text) else None


def _canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
