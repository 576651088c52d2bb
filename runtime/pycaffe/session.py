"""The mode, the device and the random streams of pycaffe, which its interface has process-wide.

They are attributes of one object, `SESSION`, and are read when pycaffe makes a net or a solver. A
net keeps the backend with which it was made.

Each thread has its own random stream, as in Caffe, so that nets of different threads do not change
each other's numbers. The stream of a thread that has not set a seed starts at the seed of the
process. A net draws from the stream of the thread that made it. After a thread has called
`set_random_seed` and run the net, the net draws from the stream of that thread.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from dataclasses import dataclass, field

from runtime.backend.base import Backend
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom, RawStream
from runtime.pycaffe.errors import CallError
from runtime.pycaffe.ranks import Rank

log = logging.getLogger("verydeep.pycaffe")

CPU, GPU = "cpu", "gpu"


@dataclass(frozen=True)
class _Current:
    """The stream that new nets of a thread draw from, its seed, and the call that set it.

    `number` counts the calls of `set_random_seed` in the process; 0 if the stream was not set by
    such a call.
    """

    stream: RawStream
    seed: int
    number: int = 0


class SessionRandom(CaffeRandom):
    """The random numbers of one net: the stream of a thread, which `set_random_seed` replaces."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._current = session.current()

    def stream(self) -> RawStream:
        """See CaffeRandom.stream."""
        current = self._session.current()
        if current.number > self._current.number:
            self._current = current
        return self._current.stream


@dataclass
class Session:
    """The settings of `set_mode_cpu`, `set_device`, `set_random_seed` and similar functions."""

    mode: str = CPU
    device: int = 0
    solver_count: int = 1
    solver_rank: int = 0
    multiprocess: bool = False
    caffe_dropout: bool = True
    _seed: int = field(default_factory=lambda: secrets.randbits(31))
    _threads: threading.local = field(default_factory=threading.local)
    _calls: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _backends: dict[tuple[str, int], Backend] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)

    def current(self) -> _Current:
        """The stream of the calling thread."""
        current: _Current | None = getattr(self._threads, "current", None)
        if current is None:
            current = self._threads.current = _Current(RawStream(self._seed), self._seed)
        return current

    @property
    def seed(self) -> int:
        """The seed of the stream of the calling thread."""
        return self.current().seed

    def random(self) -> SessionRandom:
        """The random numbers of one net; the thread's stream continues from net to net."""
        return SessionRandom(self)

    def set_mode(self, mode: str) -> None:
        """Choose the kind of device of nets that are made from now on."""
        if self._made - {mode}:
            log.warning(
                "set_mode_%s: existing nets keep their device; set the mode before the first "
                "net, or make the net again",
                mode,
            )
        self.mode = mode

    def set_random_seed(self, seed: int) -> None:
        """Restart the stream of the thread, for its existing nets as well.

        Raises:
            CallError: not an integer of 0 to 2^32 - 1; also a RuntimeError.
        """
        if not hasattr(seed, "__index__") or not 0 <= int(seed) < 2**32:
            raise CallError(
                f"set_random_seed: expected an integer of 0 to 4294967295, got {seed!r}; "
                "choose another seed"
            )
        self._set(int(seed), next(self._calls))

    def start_stream(self, seed: int, rank: int = 0) -> None:
        """Start a new stream for the nets that the thread makes from now on.

        The stream of a rank starts at seed + rank, as in Caffe. Only the low 32 bits are used.
        """
        self._set(seed, 0, rank)

    def _set(self, seed: int, number: int, rank: int = 0) -> None:
        self._threads.current = _Current(RawStream(seed + rank), seed, number)
        if threading.current_thread() is threading.main_thread():
            self._seed = seed

    def backend(self) -> Backend:
        """The backend of the mode; one for each device, so that nets can share weights.

        Raises:
            DeviceError: the device is not available.
        """
        key = (self.mode, self.device if self.mode == GPU else 0)
        if key not in self._backends:
            self._backends[key] = create_backend(*key)
        self._made.add(self.mode)
        return self._backends[key]

    def context(self) -> RunContext:
        """A context for one net; the random stream continues from net to net, as in Caffe."""
        return RunContext(
            seed=self.seed,
            rng=self.random(),
            allow_python_layers=True,
            raw_python_errors=True,
            caffe_dropout=self.caffe_dropout,
        )

    def rank(self) -> Rank:
        """The place of this process among those that train together.

        Raises:
            CallError: solver_rank is not below solver_count.
        """
        if not 0 <= self.solver_rank < self.solver_count:
            raise CallError(
                f"pycaffe solver: solver_rank is {self.solver_rank} and solver_count is "
                f"{self.solver_count}; expected a rank of 0 to solver_count - 1; call "
                "set_solver_count and set_solver_rank before making the solver"
            )
        return Rank(self.solver_rank, self.solver_count)


SESSION = Session()
"""The session of this process."""
