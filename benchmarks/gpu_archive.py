"""One archive of the results of a run, which is replaced at intervals during the run."""

from __future__ import annotations

import os
import tarfile
import threading
from pathlib import Path
from types import TracebackType

INTERVAL = 10.0
"""Seconds between two versions of the archive."""
_LARGEST = 4 << 20
"""Larger files, such as weights, are left out. Units: bytes."""


class Archive:
    """A context in which `target` is a recent archive of the files in `folder`."""

    def __init__(self, folder: Path, target: Path, interval: float = INTERVAL) -> None:
        self._folder, self._target = folder, target
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    def __enter__(self) -> Archive:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.write()

    def write(self) -> None:
        """Replace the archive; a file that disappears meanwhile is left out."""
        partial = self._target.with_name(f".{self._target.name}.{os.getpid()}")
        with tarfile.open(partial, "w:gz", compresslevel=1) as archive:
            for path in sorted(self._folder.rglob("*")):
                if path == self._target or path.name.startswith("."):
                    continue
                try:
                    if path.is_file() and path.stat().st_size <= _LARGEST:
                        archive.add(path, path.relative_to(self._folder))
                except FileNotFoundError:
                    continue
        partial.replace(self._target)

    def _refresh(self) -> None:
        while not self._ended.wait(self._interval):
            self.write()
