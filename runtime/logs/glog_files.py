"""Log files with glog's names: PROGRAM.HOST.USER.log.SEVERITY.DATE-TIME.PID."""

from __future__ import annotations

import contextlib
import datetime
import getpass
import logging
import os
import platform
import sys
from pathlib import Path

from prototxt_gen.destination import is_file
from prototxt_gen.errors import VerydeepError
from runtime.logs.glog_settings import LEVELS, SEVERITIES
from runtime.logs.rotation import keep_old_log

ROOT = "verydeep"
_SCRIPTS = ("__main__.py", "main.py", "-c", "-m", "")


class LogFile(logging.FileHandler):
    """A log file; when the disk is full it ends, and the run continues.

    With `hold`, records wait until `start`, which decides whether an existing file is continued.
    Without a `start`, as of a run that is refused, they are written to an empty file only.
    """

    def __init__(self, path: Path, delay: bool = False, hold: bool = False) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace", delay=delay)
        self.lost = False
        self._held: list[logging.LogRecord] | None = [] if hold else None

    def emit(self, record: logging.LogRecord) -> None:
        if self._held is not None:
            self._held.append(record)
        elif not self.lost:
            super().emit(record)

    def start(self, fresh: bool) -> None:
        """Write the records that were held; with `fresh`, an old file is kept as PATH.1."""
        held, self._held = self._held, None
        if held is None:
            return
        if fresh and keep_old_log(Path(self.baseFilename)) is not None:
            old, self.stream = self.stream, self._open()
            if old is not None:
                old.close()
        for record in held:
            self.handle(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        cause = sys.exc_info()[1]
        if not isinstance(cause, OSError):
            super().handleError(record)
            return
        self.lost = True
        logging.getLogger(ROOT).error(
            "%s: the log cannot be written: %s; expected room for it; free some space; the run "
            "continues without it",
            self.baseFilename,
            cause.strerror or cause,
        )

    def close(self) -> None:
        path = Path(self.baseFilename)
        if is_file(path) and path.stat().st_size:
            self._held = None
        self.start(fresh=False)
        with contextlib.suppress(OSError):
            super().close()


class SeverityFile(LogFile):
    """The log file of one severity and those above it; it is made for the first line.

    PROGRAM.SEVERITY is a symbolic link to the latest file.
    """

    def __init__(self, folder: Path, severity: int, started: datetime.datetime) -> None:
        name = SEVERITIES[severity]
        stamp = f"{started:%Y%m%d-%H%M%S}.{os.getpid()}"
        self._link = folder / f"{program_name()}.{name}"
        owner = f"{platform.node() or '(unknown)'}.{_user()}"
        super().__init__(folder / f"{program_name()}.{owner}.log.{name}.{stamp}", delay=True)
        self.setLevel(LEVELS[severity] if severity else logging.NOTSET)
        self._started = started

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is None and not self.lost:
            try:
                self._begin()
            except OSError:
                self.handleError(record)
                return
        super().emit(record)

    def _begin(self) -> None:
        self.stream = self._open()
        self.stream.write(
            f"Log file created at: {self._started:%Y/%m/%d %H:%M:%S}\n"
            f"Running on machine: {platform.node()}\n"
            "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n"
        )
        with contextlib.suppress(OSError):
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(Path(self.baseFilename).name)


def severity_files(folder: Path) -> list[logging.Handler]:
    """The log files of all severities, in a folder that is created.

    Raises:
        VerydeepError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise VerydeepError(
            f"{folder}: log files cannot be written: {reason}; expected a folder that can be "
            "written to; choose another with --log_dir or GLOG_log_dir"
        ) from cause
    started = datetime.datetime.now()
    return [SeverityFile(folder, severity, started) for severity in range(len(SEVERITIES))]


def program_name() -> str:
    """The name of the program, with which the names of its log files begin."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    return ROOT if name in _SCRIPTS else name


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "invalid-user"
