"""Ctrl-C and SIGTERM snapshot and stop; a hang-up snapshots. Caffe: signal_handler.cpp.

Caffe leaves SIGTERM to the system, which ends the process without a snapshot.
"""

from __future__ import annotations

import enum
import logging
import signal
from types import FrameType, TracebackType
from typing import Any

from prototxt_gen.errors import ProtoError

log = logging.getLogger("verydeep.solver")

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a process that SIGTERM ended."""


class Action(enum.Enum):
    """What the solver is asked to do between two iterations. Caffe: SolverAction."""

    NONE = "none"
    STOP = "stop"
    SNAPSHOT = "snapshot"


def action_of(text: str, flag: str) -> Action:
    """Read the effect that a flag gives a signal.

    Raises:
        ProtoError: not one of the three.
    """
    try:
        return Action(text)
    except ValueError:
        raise ProtoError(
            f'{flag}: Invalid signal effect "{text}" was specified; expected stop, snapshot or none'
            "; correct the flag"
        ) from None


class SignalHandler:
    """Turns SIGINT, SIGHUP and SIGTERM into requests, as long as the `with` block lasts.

    SIGTERM stops, whatever the effect of SIGINT. A second Ctrl-C while the first is still waiting
    to be served ends the run at once.
    """

    def __init__(self, sigint: Action = Action.STOP, sighup: Action = Action.SNAPSHOT) -> None:
        self._effects = {signal.SIGINT: sigint, signal.SIGTERM: Action.STOP}
        if hasattr(signal, "SIGHUP"):
            self._effects[signal.SIGHUP] = sighup
        self._pending: list[int] = []
        self._before: dict[int, Any] = {}
        self.terminated = False
        """Whether SIGTERM came."""

    def poll(self) -> Action:
        """Hand out the oldest request that has not been served."""
        return self._effects[signal.Signals(self._pending.pop(0))] if self._pending else Action.NONE

    def __enter__(self) -> SignalHandler:
        for number in self._effects:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._pending:
            raise KeyboardInterrupt
        self.terminated = self.terminated or number == signal.SIGTERM
        self._pending.append(number)
