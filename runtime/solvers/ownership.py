"""Detects the files that this program wrote; others are only replaced with `force`.

A file of a snapshot is this program's if the .state.json of the same iteration names it, or a
`snapshot` event of the run's JSON log does. A .state.json is if it has the format of one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prototxt_gen.destination import is_file
from prototxt_gen.errors import SnapshotError, UsageError, VerydeepError
from prototxt_gen.reading import parse_json
from runtime.logs.rotation import with_old_logs
from runtime.solvers.resume_state import ResumeState

_LOG_HEAD = 4096
_MARK = '"event": "snapshot"'
_STATE_LINE = re.compile(
    r"Snapshotting solver state to (?:binary proto file |HDF5 file )?(.*\.solverstate(?:\.h5)?)\s*$"
)


def log_path(prefix: str) -> Path:
    """The JSON log of the runs with a snapshot_prefix."""
    return Path(f"{prefix}.log.jsonl")


def refuse_foreign(paths: Sequence[Path], state: Path, log: Path) -> None:
    """Check that no existing file of a snapshot is from another program.

    Raises:
        SnapshotError: one is.
    """
    existing = [path for path in paths if os.path.lexists(path) and not _is_empty(path)]
    if not existing:
        return
    own = _named_by(state) or recorded(log)
    for path in existing:
        if path.name not in own:
            raise SnapshotError(
                f"{path}: exists, and this program did not write it; expected a free name, or a "
                f"file that {state.name} or {log.name} names as part of a snapshot; remove it, "
                "choose another snapshot_prefix, or replace it with --force"
            )


def refuse_foreign_log(path: Path) -> None:
    """Check that a file, if it exists, is a JSON log of this program.

    Raises:
        VerydeepError: it is not.
    """
    if not os.path.lexists(path) or _is_log(path):
        return
    raise VerydeepError(
        f"{path}: exists, and is no JSON log of this program; expected a free name, or a file of "
        "JSON objects with the key 'event'; name another with --log_json, choose another "
        "snapshot_prefix, or have it renamed with --force"
    )


def refuse_inputs(
    logs: Mapping[str, str | os.PathLike[str]], inputs: Iterable[str | os.PathLike[str]]
) -> None:
    """Check that logs, by the names of their flags, are different files that the run does not read.

    Raises:
        UsageError: a log is an input of the run, or another log.
    """
    users = {os.path.realpath(path): "the run reads" for path in inputs}
    for flag, path in logs.items():
        real = os.path.realpath(path)
        # A device may have several writers.
        if real in users and (not os.path.lexists(path) or is_file(Path(path))):
            raise UsageError(
                f"{flag} {os.fspath(path)}: is a file that {users[real]}; expected a file of its "
                "own for the log; choose another name"
            )
        users[real] = f"{flag} names"


def recorded(log: Path) -> set[str]:
    """The names of the files that a JSON log, or an older one, records as parts of snapshots."""
    names: set[str] = set()
    for path in with_old_logs(log):
        names |= _recorded_in(path)
    return names


def continues(log: Path, resume: Path | None, prefix: str) -> bool:
    """Whether a run that resumes from a solver state continues the run that a log records.

    It does if the log, in JSON or as text, names the state, and the state is in the folder of the
    run's snapshots.
    """
    if resume is None or resume.name not in _recorded_in(log) | _states_in(log):
        return False
    return not prefix or os.path.realpath(resume.parent) == os.path.realpath(Path(prefix).parent)


def _recorded_in(log: Path) -> set[str]:
    names: set[str] = set()
    with contextlib.suppress(OSError):
        if is_file(log):
            with log.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if _MARK in line:
                        names.update(Path(name).name for name in _files_of(line))
    return names


def _states_in(log: Path) -> set[str]:
    """The names of the solver states that a log in Caffe's form records."""
    with contextlib.suppress(OSError):
        if is_file(log):
            with log.open(encoding="utf-8", errors="replace") as lines:
                matches = [_STATE_LINE.search(line) for line in lines]
            return {Path(match[1]).name for match in matches if match}
    return set()


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
