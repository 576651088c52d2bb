"""Which files at a snapshot prefix this program wrote; it replaces no others without `force`.

A part of a snapshot is this program's when the .state.json of the same iteration names it, or a
`snapshot` event of the run's JSON log. A .state.json is when it has the form of one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from prototxt_gen.destination import is_file
from prototxt_gen.errors import SnapshotError, VerydeepError
from prototxt_gen.reading import parse_json
from runtime.solvers.resume_state import ResumeState

_LOG_HEAD = 4096
_MARK = '"event": "snapshot"'


def log_path(prefix: str) -> Path:
    """The JSON log of the runs with a snapshot_prefix."""
    return Path(f"{prefix}.log.jsonl")


def refuse_foreign(paths: Sequence[Path], state: Path, log: Path) -> None:
    """Refuse to replace files that this program did not write.

    Raises:
        SnapshotError: names the file.
    """
    there = [path for path in paths if os.path.lexists(path) and not _is_empty(path)]
    if not there:
        return
    own = _named_by(state) or recorded(log)
    for path in there:
        if path.name not in own:
            raise SnapshotError(
                f"{path}: exists, and this program did not write it; expected a free name, or a "
                f"file that {state.name} or {log.name} names as part of a snapshot; remove it, "
                "choose another snapshot_prefix, or replace it with --force"
            )


def refuse_foreign_log(path: Path) -> None:
    """Refuse to append to a file that is no JSON log of this program.

    Raises:
        VerydeepError: names the file.
    """
    if not os.path.lexists(path) or _is_log(path):
        return
    raise VerydeepError(
        f"{path}: exists, and is no JSON log of this program; expected a free name, or a file of "
        "JSON objects with the key 'event'; name another with --log_json, choose another "
        "snapshot_prefix, or append to it with --force"
    )


def recorded(log: Path) -> set[str]:
    """The names of the files that a JSON log records as parts of snapshots."""
    names: set[str] = set()
    try:
        if not is_file(log):
            return names
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if _MARK in line:
                    names.update(Path(name).name for name in _files_of(line))
    except OSError:
        pass
    return names


def _named_by(state: Path) -> set[str]:
    try:
        files = ResumeState.read(state).files
    except SnapshotError:
        return set()
    return {state.name, *(file.name for file in files)}


def _files_of(line: str) -> list[str]:
    try:
        files = parse_json(line)["files"]
        return [name for name in files if isinstance(name, str)]
    except (ValueError, KeyError, TypeError):
        return []


def _is_empty(path: Path) -> bool:
    return is_file(path) and not path.stat().st_size


def _is_log(path: Path) -> bool:
    try:
        if not is_file(path):
            return False
        with path.open("rb") as stream:
            head = stream.read(_LOG_HEAD)
        first, _, _ = head.partition(b"\n")
        return not head or "event" in parse_json(first.decode())
    except (OSError, ValueError, TypeError):
        return False
