"""glog's settings: its flags, and the environment variables GLOG_flag."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from prototxt_gen.errors import VerydeepError

PREFIX = "GLOG_"
SEVERITIES = ("INFO", "WARNING", "ERROR", "FATAL")
LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
"""The levels of `logging` of these severities."""


@dataclass(frozen=True)
class GlogSettings:
    """Where log lines go. The defaults are those of Caffe's tools, which print all lines."""

    log_dir: str = ""
    """The folder of the log files; empty for no files."""
    logtostderr: bool = False
    """Whether lines go to standard error only."""
    alsologtostderr: bool = True
    """Whether all lines go to standard error; otherwise those of `stderrthreshold` or more."""
    minloglevel: int = 0
    stderrthreshold: int = 2

    @property
    def folder(self) -> str:
        """The folder of the log files that are written; empty for none."""
        return "" if self.logtostderr else self.log_dir

    @property
    def stderr_level(self) -> int:
        everything = self.logtostderr or self.alsologtostderr
        return logging.NOTSET if everything else LEVELS[self.stderrthreshold]


class LogFlag(NamedTuple):
    """A flag of glog."""

    help: str
    metavar: str | None = None
    """None for a switch."""
    read: Callable[[str], object] = str


def read_severity(text: str) -> int:
    """The number of a severity.

    Raises:
        ArgumentTypeError: it is neither a number from 0 to 3 nor a name.
    """
    names = {str(number): number for number in range(len(SEVERITIES))}
    names |= {name: number for number, name in enumerate(SEVERITIES)}
    try:
        return names[text.strip().upper()]
    except KeyError:
        raise argparse.ArgumentTypeError(
            f"expected 0 (INFO), 1 (WARNING), 2 (ERROR) or 3 (FATAL), got {text!r}"
        ) from None


LOG_FLAGS = {
    "log_dir": LogFlag("write log files with glog's names into this folder as well", "DIR"),
    "logtostderr": LogFlag("log to standard error only, and ignore --log_dir"),
    "alsologtostderr": LogFlag("log to standard error as well as to files (the default)"),
    "minloglevel": LogFlag(
        "log nothing below this severity: 0 (INFO), 1 (WARNING), 2 (ERROR), 3 (FATAL)",
        "N",
        read_severity,
    ),
    "stderrthreshold": LogFlag(
        "the least severity on standard error with --noalsologtostderr (2)", "N", read_severity
    ),
}


def settings_from_environment() -> GlogSettings:
    """The settings that the variables GLOG_log_dir, GLOG_minloglevel and others give.

    Raises:
        VerydeepError: a severity is not one.
    """
    values = {
        name: os.environ[PREFIX + name] for name in LOG_FLAGS if os.environ.get(PREFIX + name)
    }
    settings = GlogSettings()
    return GlogSettings(
        log_dir=values.get("log_dir", settings.log_dir),
        logtostderr=_switch(values, "logtostderr", settings.logtostderr),
        alsologtostderr=_switch(values, "alsologtostderr", settings.alsologtostderr),
        minloglevel=_severity(values, "minloglevel", settings.minloglevel),
        stderrthreshold=_severity(values, "stderrthreshold", settings.stderrthreshold),
    )


def _switch(values: dict[str, str], name: str, default: bool) -> bool:
    # glog reads only the first character.
    return values[name][0] in "tTyY1" if name in values else default


def _severity(values: dict[str, str], name: str, default: int) -> int:
    if name not in values:
        return default
    try:
        return read_severity(values[name])
    except argparse.ArgumentTypeError as cause:
        raise VerydeepError(f"{PREFIX}{name}: {cause}; correct the variable") from None
