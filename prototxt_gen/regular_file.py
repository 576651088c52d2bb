"""Opens files whose paths come from a list, a prototxt or a user: regular files only.

Opening a FIFO waits for its writer, and opening a device may act on it, so the type of the file is
checked before it is opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from prototxt_gen.errors import DataError, VerydeepError

StrPath = str | os.PathLike[str]

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)
# Windows lacks some of the flags.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)


@dataclass(frozen=True)
class RegularFile:
    """A path that must be a regular file, and its description in errors.

    `what` is the subject of the message, such as "the labels", and `expected` the kind of file;
    with `pipe` a pipe is accepted too.
    """

    path: StrPath
    error: type[VerydeepError] = DataError
    what: str = ""
    expected: str = "a file"
    advice: str = "check the path"
    pipe: bool = False

    def check(self) -> None:
        """Check the path without opening it.

        Raises:
            VerydeepError: of type `error`: it is missing or is not a regular file.
        """
        try:
            self._check_mode(os.stat(self.path).st_mode)  # noqa: PTH116
        except (OSError, ValueError) as cause:
            raise self.unreadable(cause) from cause

    def open(self) -> BinaryIO:
        """Open the file to read.

        Raises:
            VerydeepError: of type `error`: it is missing, of another kind, or not readable.
        """
        self.check()
        try:
            if self.pipe:
                return Path(self.path).open("rb")
            descriptor = os.open(self.path, _FLAGS)
        except (OSError, ValueError) as cause:
            raise self.unreadable(cause) from cause
        stream = os.fdopen(descriptor, "rb")
        try:
            # The file may have been replaced since it was checked.
            self._check_mode(os.fstat(descriptor).st_mode)
        except VerydeepError:
            stream.close()
            raise
        return stream

    def read(self) -> bytes:
        """Read the file.

        Raises:
            VerydeepError: of type `error`; see `open`.
        """
        with self.open() as stream:
            try:
                return stream.read()
            except OSError as cause:
                raise self.unreadable(cause) from cause

    def _check_mode(self, mode: int) -> None:
        if stat.S_ISREG(mode) or (self.pipe and stat.S_ISFIFO(mode)):
            return
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a special file")
        raise self.error(
            f"{self.path}: {self._subject}cannot be read: it is {kind}; expected a regular file; "
            f"{self.advice}"
        )

    def unreadable(self, cause: Exception) -> VerydeepError:
        """The error for a failed system call."""
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        return self.error(
            f"{self.path}: {self._subject}cannot be read: {reason}; expected {self.expected}; "
            f"{self.advice}"
        )

    @property
    def _subject(self) -> str:
        return f"{self.what} " if self.what else ""


def check_below(
    paths: Iterable[StrPath], root: StrPath, error: type[VerydeepError] = DataError
) -> None:
    """Check that all files are below a folder, after resolving symbolic links.

    Raises:
        error: a file is not, or is not a possible path.
    """
    folder = os.path.realpath(root)
    for path in paths:
        try:
            inside = Path(os.path.realpath(path)).is_relative_to(folder)
        except (OSError, ValueError) as cause:
            raise RegularFile(path, error).unreadable(cause) from cause
        if not inside:
            raise error(
                f"{path}: it lies outside of its root folder; expected a file below {folder}, the "
                "only place that --confine-lists permits; change the list, or omit the option"
            )
