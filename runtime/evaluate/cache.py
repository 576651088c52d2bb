"""Posteriors on disk, filed under all that decides them, so that no evaluation costs twice.

A file holds the posteriors of one net at one scale; fusions and tables are averages of such files.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.batch import RecordSource
from prototxt_gen.errors import DataError, SnapshotError
from prototxt_gen.files import atomic_write, atomic_write_text
from runtime.evaluate.fusion import Posteriors
from runtime.evaluate.image_source import fingerprint

_CHUNK = 1 << 20
_NAME_DIGITS = 32


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
class PosteriorCache:
    """A folder of posteriors."""

    folder: Path

    def path(self, key: dict[str, Any]) -> Path:
        """Where the posteriors of a key lie."""
        digest = hashlib.sha256(_canonical(key).encode()).hexdigest()
        return self.folder / f"{digest[:_NAME_DIGITS]}.npz"

    def load(self, key: dict[str, Any]) -> Posteriors | None:
        """The posteriors of a key, if they were computed before.

        Raises:
            DataError: a file is there and is not whole, or belongs to another key.
        """
        path = self.path(key)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                described = str(found["key"])
                posteriors = Posteriors(found["values"], found["labels"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as cause:
            raise _damaged(path, str(cause)) from cause
        if described != _canonical(key):
            raise _damaged(path, "it holds the posteriors of something else")
        return posteriors

    def store(self, key: dict[str, Any], posteriors: Posteriors) -> Path:
        """Keep posteriors for next time."""
        path = self.path(key)
        with atomic_write(path, "wb", DataError) as stream:
            np.savez(
                stream,
                key=np.array(_canonical(key)),
                values=posteriors.values,
                labels=posteriors.labels,
            )
        return path

    def data_fingerprint(self, path: Path, source: RecordSource, count: int) -> str:
        """The checksum of a source, computed again only where its file changed."""
        file = path / "data.mdb"
        if not file.is_file():
            return fingerprint(source, count)
        status = file.stat()
        name = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}|{count}"
        note = self.folder / f"data-{hashlib.sha256(name.encode()).hexdigest()[:_NAME_DIGITS]}.txt"
        if note.is_file():
            return note.read_text(encoding="utf-8").strip()
        found = fingerprint(source, count)
        atomic_write_text(note, found + "\n", DataError)
        return found


def _canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path}: no posteriors can be read: {why}; expected what an evaluation wrote; delete the "
        "file, and they are computed again"
    )
