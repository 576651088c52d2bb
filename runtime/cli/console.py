"""Standard streams that may be closed, full, or have an encoding that lacks characters."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from prototxt_gen.destination import is_standard_output
from prototxt_gen.errors import printable

_HANDLER = "verydeep.bytes-or-escapes"
_NAMES = ("stdin", "stdout", "stderr")


class _Messages:
    """Standard error, where a write that fails is ignored: there is no place to report it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console:
    """The standard streams of a command line.

    A closed descriptor is opened on the null device, so that no file of the run gets its number. A
    character that a stream cannot encode is written as the byte of a file name that it represents,
    or otherwise as an escape. Messages go to standard error, or to standard output if standard
    error is closed.
    """

    def __init__(self) -> None:
        self.lost: str | None = None
        """Why standard output cannot be written; "" if its reader has closed the pipe."""
        self._stderr: TextIO | None = None
        """The stream of standard error while `lenient_messages` replaces it."""
        self._stderr_closed = sys.stderr is None
        for number, name in enumerate(_NAMES):
            _open_missing(number, name)
        codecs.register_error(_HANDLER, _bytes_or_escapes)
        _encode_with(sys.stdout, _HANDLER)
        _encode_with(sys.stderr, "backslashreplace")

    @contextlib.contextmanager
    def lenient_messages(self) -> Iterator[None]:
        """Ignore errors of standard error in the block: the results do not depend on it."""
        self._stderr = sys.stderr
        sys.stderr = cast(TextIO, _Messages(self._stderr))
        try:
            yield
        finally:
            sys.stderr, self._stderr = self._stderr, None

    def report(self, message: str) -> None:
        """Print a message that is not part of the result."""
        streams = (self._stderr or sys.stderr, sys.stdout)
        for stream in streams[self._stderr_closed :]:
            with contextlib.suppress(OSError, ValueError):
                print(printable(message), file=stream, flush=True)
                return

    def flush(self) -> None:
        """Write out standard output."""
        try:
            sys.stdout.flush()
        except OSError as cause:
            self.lose(cause)
        except ValueError:
            self.lost = "it was closed"

    def lose(self, cause: OSError) -> None:
        """Stop writing to standard output, and set `lost` to the reason."""
        if self.lost is None:
            broken = isinstance(cause, BrokenPipeError)
            self.lost = "" if broken else cause.strerror or str(cause)
        with contextlib.suppress(OSError, ValueError):
            # The interpreter flushes its buffers at exit.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


def beside(path: str | os.PathLike[str]) -> contextlib.AbstractContextManager[object]:
    """Print to standard error in the block if the file at `path` is standard output."""
    if is_standard_output(path):
        return contextlib.redirect_stdout(sys.stderr)
    return contextlib.nullcontext()


def _open_missing(number: int, name: str) -> None:
    try:
        os.fstat(number)
    except OSError:
        handle = os.open(os.devnull, os.O_RDWR)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)
        os.set_inheritable(number, True)
    if getattr(sys, name) is None:
        mode = "r" if number == 0 else "w"
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _encode_with(stream: object, errors: str) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=errors)


def _bytes_or_escapes(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return b"".join(map(_encoded, part)), error.end


def _encoded(character: str) -> bytes:
    # Python decodes bytes of file names that are not text as these characters.
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00])
    return character.encode("ascii", "backslashreplace")
