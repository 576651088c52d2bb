"""Log lines as original Caffe writes them (glog), so that tools made for Caffe's logs work here."""

from __future__ import annotations

import datetime
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from prototxt_gen.errors import VerydeepError, printable
from runtime.logs.glog_files import ROOT, LogFile, severity_files
from runtime.logs.glog_settings import LEVELS, settings_from_environment

_LOGGER = logging.getLogger(f"{ROOT}.caffe")
_LETTERS = {
    logging.DEBUG: "I",
    logging.INFO: "I",
    logging.WARNING: "W",
    logging.ERROR: "E",
    logging.CRITICAL: "F",
}


class GlogFormatter(logging.Formatter):
    """`I1121 08:19:32.223253 16787 solver.cpp:239] Iteration 0, lr = 0.02`.

    The date is month and day: Caffe's parse_log.py and extract_seconds.py read exactly that, and
    stop at the year that newer glogs put before it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Put glog's prefix before the message; further lines of a message stay bare."""
        time = datetime.datetime.fromtimestamp(record.created)
        letter = _LETTERS.get(record.levelno, "I")
        location = getattr(record, "caffe_at", f"{record.filename}:{record.lineno}")
        text = f"{letter}{time:%m%d %H:%M:%S.%f} {record.process or 0:5d} {location}] "
        text += printable(record.getMessage(), most_lines=None)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


if TYPE_CHECKING:
    _TextHandler = logging.StreamHandler[TextIO]
else:
    _TextHandler = logging.StreamHandler  # takes no parameter before Python 3.11


class _Stderr(_TextHandler):
    """Writes to what sys.stderr is at the time: a progress bar puts itself in its place."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Lose a line that standard error does not take: there is no place to report it."""


def lost_log_files() -> bool:
    """Whether lines for a log file were lost since it was set up."""
    handlers = logging.getLogger(ROOT).handlers
    return any(isinstance(handler, LogFile) and handler.lost for handler in handlers)


def caffe_log(at: str, message: str, *args: object, level: int = logging.INFO) -> None:
    """Log a line of Caffe's under the file and line that Caffe logs it from: "solver.cpp:239"."""
    _LOGGER.log(level, message, *args, extra={"caffe_at": at})


def number(value: float) -> str:
    """Write a number as a C++ stream does: six significant digits."""
    return f"{float(value):.6g}"


def setup_logging(
    level: int = logging.INFO,
    log_file: str | os.PathLike[str] | None = None,
    terse: bool = False,
    hold: bool = False,
) -> None:
    """Send the project's log to standard error and to files, for command lines.

    The files are `log_file`, which is appended to, and those of glog's settings. With `terse`, the
    lines about how nets are wired go to the files only. With `hold`, lines for `log_file` wait
    until `start_log_files`. A further call replaces the handlers of the one before.

    Raises:
        VerydeepError: a log file cannot be opened, or a variable of glog has a wrong value.
    """
    close_logging()
    settings = settings_from_environment()
    stderr = _Stderr()
    stderr.setLevel(settings.stderr_level)
    if terse:
        stderr.addFilter(_is_short)
    handlers: list[logging.Handler] = [stderr]
    if log_file is not None:
        handlers.append(_file_handler(Path(log_file), hold))
    if settings.folder:
        handlers += severity_files(Path(settings.folder))
    root = logging.getLogger(ROOT)
    for handler in handlers:
        handler.setFormatter(GlogFormatter())
        handler.set_name(ROOT)
        root.addHandler(handler)
    least = LEVELS[settings.minloglevel] if settings.minloglevel else level
    root.setLevel(max(level, least))
    root.propagate = False


def start_log_files(fresh: bool) -> None:
    """Write the lines that log files hold; with `fresh`, an old file is kept as PATH.1.

    Raises:
        VerydeepError: the old file cannot be renamed.
    """
    for handler in logging.getLogger(ROOT).handlers:
        if isinstance(handler, LogFile):
            try:
                handler.start(fresh)
            except OSError as cause:
                raise VerydeepError(
                    f"{handler.baseFilename}: an old log cannot be renamed: {cause.strerror}; "
                    "expected a folder that can be written; choose another with --log_file"
                ) from cause


def _is_short(record: logging.LogRecord) -> bool:
    """Leave out the lines by the hundred that a net's making takes, but no warning."""
    wiring = record.name == f"{ROOT}.net" or "\n" in record.getMessage()
    return record.levelno > logging.INFO or not wiring


def close_logging() -> None:
    """Take away what setup_logging set up."""
    root = logging.getLogger(ROOT)
    for handler in list(root.handlers):
        if handler.get_name() == ROOT:
            root.removeHandler(handler)
            handler.close()
    root.propagate = True
    root.setLevel(logging.NOTSET)


def _file_handler(path: Path, hold: bool) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return LogFile(path, hold=hold)
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise VerydeepError(
            f"{path}: the log cannot be written: {reason}; expected a file that can be appended "
            "to; choose another path"
        ) from cause
