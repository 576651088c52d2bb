"""Old logs, which a fresh run keeps under another name."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from prototxt_gen.destination import is_file


def keep_old_log(path: Path) -> Path | None:
    """Rename a log to PATH.1, or the next free number; returns the new path.

    Does nothing if there is no such file, if it is empty, or if it is no regular file.

    Raises:
        OSError: the folder cannot be written.
    """
    target = Path(os.path.realpath(path))
    if not is_file(target) or not target.stat().st_size:
        return None
    numbers = [number for number, _ in _numbered(target)]
    kept = target.with_name(f"{target.name}.{max(numbers, default=0) + 1}")
    target.rename(kept)
    return kept


def with_old_logs(path: Path) -> list[Path]:
    """A log and the older ones that were kept, newest first."""
    older = sorted(_numbered(Path(os.path.realpath(path))), reverse=True)
    return list(itertools.chain([path], (file for _, file in older)))


def _numbered(path: Path) -> list[tuple[int, Path]]:
    name = re.compile(rf"{re.escape(path.name)}\.([1-9]\d{{0,8}})")
    try:
        matches = [(name.fullmatch(entry.name), entry) for entry in path.parent.iterdir()]
    except OSError:
        return []
    return [(int(match[1]), entry) for match, entry in matches if match]
