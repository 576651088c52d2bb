"""ResumeState: P_iter_N.state.json, the state that an exact resume needs and Caffe's files lack.

A snapshot is complete if this file exists and its checksums match the other files.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from prototxt_gen.destination import is_file
from prototxt_gen.errors import SnapshotError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.reading import read_json, short_repr
from prototxt_gen.sidecar import FP32
from prototxt_gen.toml_tables import is_integer

log = logging.getLogger("verydeep.solver")

FORMAT = 1
SUFFIX = ".state.json"
_CHUNK = 1 << 22
_MOST_BYTES = 1 << 20


@dataclass
class FileSum:
    """Size and SHA-256 of one file of a snapshot."""

    name: str
    bytes: int
    sha256: str


@dataclass
class ResumeState:
    """The position of the data, the seed and the state of the schedule at a snapshot."""

    iteration: int
    seed: int
    shards: int
    """Equal parts of a batch."""
    train_pass: int
    """Passes of the train net, one for each shard."""
    test_passes: list[int]
    plateau: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    precision: str = FP32
    """The precision of the operands of convolutions."""
    files: list[FileSum] = field(default_factory=list)
    format: int = FORMAT

    def write(self, path: Path) -> None:
        """Write the state as JSON; replaces the file atomically.

        Raises:
            SnapshotError: the file cannot be written.
        """
        atomic_write_text(path, json.dumps(asdict(self), indent=1) + "\n", SnapshotError)

    @classmethod
    def read(cls, path: Path) -> ResumeState:
        """Read a file of `write`.

        Raises:
            SnapshotError: unreadable, no JSON, of another format, or damaged.
        """
        try:
            values = read_json(path, _MOST_BYTES, regular=True)
        except (OSError, ValueError) as cause:
            raise SnapshotError(
                f"{path}: cannot be read: {cause}; expected the JSON written with a snapshot; "
                "use the snapshot before it (--snapshot auto)"
            ) from cause
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise SnapshotError(
                f"{path}: unknown format; expected {FORMAT}, got "
                f"{short_repr(values.get('format'))}; resume with the version that wrote it"
            )
        try:
            return _checked(values)
        except (TypeError, ValueError) as cause:
            raise SnapshotError(
                f"{path}: damaged: {cause}; expected the keys "
                f"{', '.join(f.name for f in fields(cls))}, got {short_repr(values, 200)}; use the "
                "snapshot before it (--snapshot auto)"
            ) from cause

    def warn_of_changes(self, seed: int, precision: str) -> None:
        """Warn if the resumed run has another seed or precision than the snapshot's."""
        if self.seed != seed:
            log.warning(
                "The snapshot's run had the seed %d and this one has %d: the order of the data and "
                "the dropout masks will differ from an uninterrupted run; set random_seed: %d to "
                "avoid that",
                self.seed,
                seed,
                self.seed,
            )
        if self.precision != precision:
            log.warning(
                "The snapshot's run computed in %s and this one computes in %s; use --precision %s "
                "to continue with the same precision",
                self.precision,
                precision,
                self.precision,
            )

    def fault(self, folder: Path) -> str:
        """The first difference between the files in a folder and the checksums; '' if none."""
        for expected in self.files:
            path = folder / expected.name
            if not is_file(path):
                return f"{path} is missing"
            size = path.stat().st_size
            if size != expected.bytes:
                return f"{path} has {size} bytes, {expected.bytes} expected"
            if sha256_of(path) != expected.sha256:
                return f"{path} is corrupt: its SHA-256 differs"
        return ""


def sum_files(paths: Sequence[Path]) -> list[FileSum]:
    """Size and SHA-256 of files, read from the disk.

    Raises:
        SnapshotError: a file cannot be read.
    """
    return [FileSum(path.name, path.stat().st_size, sha256_of(path)) for path in paths]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        SnapshotError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_CHUNK):
                digest.update(block)
    except OSError as cause:
        raise SnapshotError(
            f"{path}: cannot be read back: {cause.strerror}; expected a readable file; "
            "check the disk and the permissions"
        ) from cause
    return digest.hexdigest()


def _checked(values: Any) -> ResumeState:
    """The state of JSON values.

    Raises:
        TypeError, ValueError: a value is missing, unknown or of the wrong type.
    """
    values = dict(_of_type(values, dict, "the state"))
    entries = _of_type(values.pop("files", None), list, "files")
    files = [FileSum(**_of_type(entry, dict, "a file")) for entry in entries]
    state = ResumeState(**values, files=files)
    for key in ("iteration", "seed", "shards", "train_pass"):
        _count(getattr(state, key), key, int(key == "shards"))
    for number in _of_type(state.test_passes, list, "test_passes"):
        _count(number, "test_passes")
    for key in ("plateau", "best"):
        if getattr(state, key) is not None:
            _of_type(getattr(state, key), dict, key)
    _of_type(state.precision, str, "precision")
    for file in files:
        _of_type(file.name, str, "a file's name")
        _count(file.bytes, "bytes")
        _of_type(file.sha256, str, "sha256")
        if file.name in ("", "..") or Path(file.name).name != file.name:
            raise ValueError(f"{short_repr(file.name)} is not the name of a file in this folder")
    return state


def _of_type(value: Any, cls: type, name: str) -> Any:
    if not isinstance(value, cls):
        raise ValueError(f"{name} is {short_repr(value)}, not a {cls.__name__}")
    return value


def _count(value: Any, name: str, least: int = 0) -> None:
    if not is_integer(value) or value < least:
        raise ValueError(f"{name} is {short_repr(value)}, not a count")
