"""The errors a user can meet. They live here because every package may import this one.

A message reads `where: what; expected ..., got ...; how to fix`. The command line prints it
without a traceback and ends with the error's exit status.
"""

from __future__ import annotations

import re

_LONGEST_WORD = 300
_LONGEST_LINE = 2000
_MOST_LINES = 1000
_WORD = re.compile(rf"(?<![^\s,;])[^\s,;]{{{_LONGEST_WORD + 1},}}")
# All of C0 but tab and newline, DEL, and C1: a terminal acts on them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class VerydeepError(Exception):
    """Root of every error that is the user's to read."""

    status = 2
    """Exit status of the command line."""

    def __str__(self) -> str:
        """The message, printable and of bounded length."""
        return printable(super().__str__())


class ProtoError(VerydeepError):
    """A prototxt or binary message that does not parse, or whose values are impossible."""


class ShapeError(VerydeepError):
    """Blobs, weights or images whose shapes do not fit together."""


class DataError(VerydeepError):
    """A database, image, label or mean file that is missing, corrupt or out of range."""


class SnapshotError(VerydeepError):
    """Weights or solver state that cannot be read, written or restored."""


class DeviceError(VerydeepError):
    """A device that is absent, out of memory or unable to run what was asked."""


class KernelBuildError(VerydeepError):
    """A kernel that does not compile; carries the compiler's output."""


class UsageError(VerydeepError):
    """A flag whose value is invalid, or flags that exclude each other."""


class UnsupportedError(VerydeepError):
    """A layer type, op or option that is known by name and not offered."""


class PythonLayerError(VerydeepError):
    """An exception that the Python code of a layer raised."""


class TrainingError(VerydeepError):
    """A run that cannot usefully go on: a loss that is NaN or stuck."""


class StoppedError(TrainingError):
    """A run that was stopped by a signal before its end; `status` tells SIGTERM from the others."""

    def __init__(self, message: str, status: int = VerydeepError.status) -> None:
        super().__init__(message)
        self.status = status


def printable(text: str, most_lines: int | None = _MOST_LINES) -> str:
    """A text shortened where it is too long to read, with control characters as escapes.

    Names come from files of any content: a long word, line or list of lines keeps its beginning
    and its end.
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
