"""Starts the command line. Ctrl-C during the imports ends the process with status 130."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Import the command line and run one verb; returns its exit status."""
    with _quick_exit():
        run = _command_line()
    return run(argv)


def _command_line() -> Callable[[Sequence[str] | None], int]:
    from runtime.cli import main

    main.verbs()
    return main.main


@contextlib.contextmanager
def _quick_exit() -> Iterator[None]:
    """End the process at SIGINT, where nothing has to be cleaned up.

    A KeyboardInterrupt within an import may be lost, or prints a traceback. A script that starts a
    program in the background has it ignore SIGINT; this is not changed.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"verydeep: interrupted\n")
    os._exit(_INTERRUPTED)
