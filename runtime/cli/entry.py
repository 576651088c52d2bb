"""Starts the command line. Ctrl-C during the imports ends the process with status 130."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

_TRAINING = frozenset({"train", "run"})
_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Import the command line and run one verb; returns its exit status."""
    _heed_interrupts(sys.argv[1:] if argv is None else argv)
    with _quick_exit():
        run = _command_line()
    return run(argv)


def _command_line() -> Callable[[Sequence[str] | None], int]:
    from runtime.cli import main

    main.verbs()
    return main.main


def _heed_interrupts(words: Sequence[str]) -> None:
    """Handle SIGINT in the verbs that train, even where the process was started to ignore it.

    A script starts programs in the background so. Training handles SIGINT there, as in Caffe, and
    this must begin before the imports. Other verbs continue to ignore it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not _TRAINING.isdisjoint(words):
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _quick_exit() -> Iterator[None]:
    """End the process at SIGINT, where nothing has to be cleaned up.

    A KeyboardInterrupt within an import may be lost, or prints a traceback.
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
