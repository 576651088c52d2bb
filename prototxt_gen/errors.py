"""The errors that are reported to users. Every package may import this module.

The form of a message is `where: what; expected ..., got ...; how to fix`. The command line prints
it without a traceback and exits with the status of the error.
"""

from __future__ import annotations

import re

_LONGEST_WORD = 300
_LONGEST_LINE = 2000
_MOST_LINES = 1000
_WORD = re.compile(rf"(?<![^\s,;])[^\s,;]{{{_LONGEST_WORD + 1},}}")
# C0 except tab and newline, DEL, and C1: a terminal interprets them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class VerydeepError(Exception):
    """Base class of all errors that are reported to users."""

    status = 2
    """The exit status of the command line."""

    def __str__(self) -> str:
        """The message, printable and of bounded length."""
        return printable(super().__str__())


class ProtoError(VerydeepError):
    """A prototxt or binary message that does not parse, or that has invalid values."""


class ShapeError(VerydeepError):
    """Blobs, weights or images whose shapes do not fit together."""


class DataError(VerydeepError):
    """A database, image, label or mean file that is missing, corrupt or out of range."""


class SnapshotError(VerydeepError):
    """Weights or solver state that cannot be read, written or restored."""


class DeviceError(VerydeepError):
    """A device that is unavailable, out of memory, or does not support an operation."""


class KernelBuildError(VerydeepError):
    """A kernel that does not compile; the message contains the compiler's output."""


class UsageError(VerydeepError):
    """A flag with an invalid value, or flags that exclude each other."""


class UnsupportedError(VerydeepError):
    """A layer type, operation or option of Caffe that is not supported."""


class PythonLayerError(VerydeepError):
    """An exception raised by the Python code of a layer."""


class TrainingError(VerydeepError):
    """Training that was stopped because the loss is NaN or does not decrease."""


class StoppedError(TrainingError):
    """Training that was stopped by a signal; `status` distinguishes SIGTERM from other signals."""

    def __init__(self, message: str, status: int = VerydeepError.status) -> None:
        super().__init__(message)
        self.status = status


def printable(text: str, most_lines: int | None = _MOST_LINES) -> str:
    """Escape the control characters of a text, and shorten it where it is too long to read.

    Names in messages come from files of any content. The beginning and the end of a long word, line
    or list of lines are kept.
    """
    if len(text) > _LONGEST_WORD:
        text = _WORD.sub(lambda word: _shortened(word[0], _LONGEST_WORD), text)
        lines = text.split("\n")
        if most_lines is not None and len(lines) > most_lines:
            lines = [*lines[: most_lines // 2], "...", *lines[-most_lines // 2 :]]
        text = "\n".join(_shortened(line, _LONGEST_LINE) for line in lines)
    return _CONTROL.sub(lambda character: f"\\x{ord(character[0]):02x}", text)


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    tail = longest // 4
    return f"{text[: longest - tail - 5]} ... {text[-tail:]}"
