"""The destination of a path to write: a file to replace, or a device or pipe to write to."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.errors import ProtoError

_MOST_LINKS = 40
_DESCRIPTORS = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd")
_REFUSED = ((stat.S_ISBLK, "a block device"), (stat.S_ISSOCK, "a socket"))


@dataclass(frozen=True)
class Destination:
    """The destination of a path after all symbolic links."""

    path: Path
    status: os.stat_result | None
    """None if the file does not exist."""
    descriptor: int | None = None
    """The open descriptor of this process that the path refers to, as for /dev/stdout."""

    @property
    def replaceable(self) -> bool:
        """Whether the file may be replaced by another; if not, it must be written to."""
        regular = self.status is None or stat.S_ISREG(self.status.st_mode)
        return regular and self.descriptor is None


def find_destination(path: str | os.PathLike[str]) -> Destination:
    """Follow the symbolic links of a path.

    Raises:
        OSError: too many links, a folder, a block device, a socket, or an impossible name.
    """
    try:
        return _checked(_follow(os.fspath(path)))
    except ValueError as cause:
        raise OSError(errno.EINVAL, f"no file can have this name ({cause})") from cause


def _follow(name: str) -> Destination:
    for _ in range(_MOST_LINKS):
        folder, base = os.path.split(name)
        folder = os.path.realpath(folder or os.curdir)
        place = Path(folder, base)
        descriptors = _DESCRIPTORS.fullmatch(folder)
        if descriptors and base.isdecimal():
            if int(descriptors[1]) == os.getpid():
                return Destination(place, os.fstat(int(base)), int(base))
            # The link of a descriptor of another process need not be the name of a file.
            return Destination(place, place.stat())
        try:
            status = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Destination(place, None)
        if not stat.S_ISLNK(status.st_mode):
            return Destination(place, status)
        name = str(place.parent / place.readlink())
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)


def _checked(destination: Destination) -> Destination:
    mode = 0 if destination.status is None else destination.status.st_mode
    if stat.S_ISDIR(mode) or destination.path.name in ("", os.pardir):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(destination.path))
    for is_refused, kind in _REFUSED:
        if is_refused(mode) and destination.descriptor is None:
            raise OSError(errno.EINVAL, f"it is {kind}, which cannot be written to")
    return destination


def is_standard_output(path: str | os.PathLike[str]) -> bool:
    """Whether a path refers to the standard output of this process, as /dev/stdout does."""
    try:
        return find_destination(path).descriptor == 1
    except OSError:
        return False


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether a file or folder exists; False for a name that the system does not accept."""
    return _mode(path) != 0


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a regular file; see `exists`."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder; see `exists`."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: str | os.PathLike[str]) -> int:
    # Path.exists and similar methods raise an exception if a name is too long.
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):
        return 0


def utf8_path(path: str | os.PathLike[str]) -> str:
    """A path with slashes, for a prototxt.

    Raises:
        ProtoError: its bytes are not UTF-8.
    """
    text = Path(path).as_posix() if isinstance(path, os.PathLike) else path
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise ProtoError(
            f"{text}: a path that is not UTF-8 cannot be written to a prototxt; expected UTF-8; "
            "rename the folder, or change into it (cd) and give a relative path"
        ) from cause
    return text


def current_folder() -> str:
    """The working folder, for messages; it may have been removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return "one that was removed"
