"""The cache of built kernels: a folder of the user, with one file per build."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from prototxt_gen.errors import KernelBuildError
from prototxt_gen.files import temporary_folder


def cache_folder() -> Path:
    """The folder: $XDG_CACHE_HOME/verydeep, or ~/.cache/verydeep, or one below the system's /tmp.

    Raises:
        KernelBuildError: none of them can be written.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # Path.home() fails for a user without an entry in the password database.
    home = os.environ.get("HOME", "")
    tried = [Path(base) / "verydeep"] if base else []
    tried += [Path(home) / ".cache" / "verydeep"] if home and not base else []
    tried.append(Path(tempfile.gettempdir()) / f"verydeep-{os.getuid()}")
    for folder in tried:
        if _usable(folder):
            return folder
    raise KernelBuildError(
        f"kernel cache: none of {', '.join(map(str, tried))} can be written; expected a "
        "writable folder for built kernels; set XDG_CACHE_HOME to one"
    )


def _usable(folder: Path) -> bool:
    """Whether only this user can write the folder, whose files are loaded as code."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        return (
            status.st_uid == os.getuid()
            and not status.st_mode & stat.S_IWOTH
            and os.access(folder, os.W_OK)
        )
    except OSError:
        return False


def digest(*parts: str | bytes) -> str:
    """A name derived from contents: equal parts give equal names."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:24]


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The path of a file in the cache; if it is missing, `build` writes it to a temporary path.

    If two processes build it at the same time, the later rename replaces the file of the earlier.
    """
    path = cache_folder() / name
    if not path.exists():
        with temporary_folder(path) as folder:
            scratch = folder / name
            build(scratch)
            scratch.replace(path)
    return path
