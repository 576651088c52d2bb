"""Replaces several files together: all or none of them, even if the process is killed.

They are written to a folder `.NAME.xxxxxxxx.tmp`. When they are complete, it is renamed to
`.NAME.xxxxxxxx.commit`, and its files are moved to their destinations. After a process was killed,
the next writer removes a folder `.tmp`, and completes the moves of a folder `.commit`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from prototxt_gen.destination import Destination, find_destination
from prototxt_gen.errors import VerydeepError
from prototxt_gen.files import (
    abandoned,
    atomic_write,
    keep_attributes,
    remove_abandoned,
    temporary_folder,
    typed_errors,
)

COMMITTED = ".commit"


@contextlib.contextmanager
def replace_together(stem: Path, error: type[VerydeepError] = VerydeepError) -> Iterator[Path]:
    """Yield a folder whose files replace those of the same names in the folder of `stem`.

    They are moved in alphabetical order when the block ends. Symbolic links, permissions and owners
    are kept as in `atomic_write`. If the block raises an exception, nothing is replaced.

    Raises:
        error: the folder is read-only, the disk is full, or a name belongs to a folder, a device or
            a pipe.
    """
    with typed_errors(stem, error), temporary_folder(stem) as folder:
        try:
            yield folder
        except error as cause:
            inside, outside = (str(place / "x")[:-1] for place in (folder, folder.parent))
            raise error(str(cause).replace(inside, outside)) from cause
        for path in folder.iterdir():
            _regular(folder.parent / path.name)
        committed = folder.with_suffix(COMMITTED)
        folder.rename(committed)
        _move_into_place(committed)


def settle(folder: Path, stem: str) -> list[Path]:
    """Remove the incomplete files of killed processes, and move their complete ones.

    `stem` is a regular expression for names. Returns the temporary folders and files.
    """
    settled = remove_abandoned(folder, stem)
    for path in abandoned(folder, stem, COMMITTED):
        with contextlib.suppress(OSError):
            _move_into_place(path)
            settled.append(path)
    return settled


def _move_into_place(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        destination = _regular(folder.parent / path.name)
        with path.open("rb") as stream:
            keep_attributes(stream.fileno(), destination)
            try:
                path.replace(destination.path)
            except OSError as cause:
                if cause.errno != errno.EXDEV:
                    raise
                with atomic_write(destination.path) as copy:
                    shutil.copyfileobj(stream, copy)
                path.unlink()
    folder.rmdir()


def _regular(path: Path) -> Destination:
    destination = find_destination(path)
    if not destination.replaceable:
        raise OSError(errno.EINVAL, f"{os.fspath(path)} is a device or a pipe")
    return destination
