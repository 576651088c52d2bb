"""Signals: SIGINT and SIGTERM take a snapshot and stop, SIGHUP takes a snapshot.

Caffe: signal_handler.cpp, which does not handle SIGTERM, so that it ends the process without a
snapshot.
"""

from __future__ import annotations

import enum
import logging
import signal
from types import FrameType, TracebackType
from typing import Any

from prototxt_gen.errors import UsageError

log = logging.getLogger("verydeep.solver")

TERMINATED = 128 + signal.SIGTERM
"""Exit status after SIGTERM."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit status after SIGINT."""


class Action(enum.Enum):
    """The request of a signal, which a solver handles between iterations. Caffe: SolverAction."""

    NONE = "none"
    STOP = "stop"
    SNAPSHOT = "snapshot"


def action_of(text: str, flag: str) -> Action:
    """The action of a flag such as --sigint_effect.

    Raises:
        UsageError: the value is not stop, snapshot or none.
    """
    try:
        return Action(text)
    except ValueError:
        raise UsageError(
            f'{flag}: Invalid signal effect "{text}" was specified; expected stop, snapshot or none'
            f', got "{text}"; change {flag}'
        ) from None


class SignalHandler:
    """Collects SIGINT, SIGHUP and SIGTERM as requests within a `with` block.

    SIGTERM always stops. A second SIGINT before the first one is handled raises KeyboardInterrupt.
    """

    def __init__(self, sigint: Action = Action.STOP, sighup: Action = Action.SNAPSHOT) -> None:
        self._effects = {signal.SIGINT: sigint, signal.SIGTERM: Action.STOP}
        if hasattr(signal, "SIGHUP"):
            self._effects[signal.SIGHUP] = sighup
        self._pending: list[int] = []
        self._before: dict[int, Any] = {}
        self.terminated = False
        """Whether SIGTERM was received."""
        self.interrupted = False
        """Whether SIGINT was received, with the effect STOP."""

    def poll(self) -> Action:
        """Remove and return the oldest request; Action.NONE if there is none."""
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
        stops = number == signal.SIGINT and self._effects[signal.SIGINT] is Action.STOP
        self.interrupted = self.interrupted or stops
        self._pending.append(number)
