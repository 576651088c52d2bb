"""The mode, the device and the random streams of pycaffe, whose API has them process-wide.

They are attributes of one object, `SESSION`, and are read when pycaffe makes a net or a solver. A
net keeps the backend that it was made with.

Each thread has a random stream of its own, as in Caffe, where the generator is thread-specific:
nets of different threads do not change each other's numbers. The stream of a thread that has not
set a seed starts at the process's seed. A net draws from the stream of the thread that made it
until a thread calls `set_random_seed` and runs the net: from then on it draws from that thread's.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from dataclasses import dataclass, field

from prototxt_gen.errors import UnsupportedError
from runtime.backend.base import Backend
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom, RawStream
from runtime.pycaffe.errors import CallError

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
    """The random numbers of one net: a thread's stream, which `set_random_seed` replaces."""

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
    """What `set_mode_cpu`, `set_device`, `set_random_seed` and their like act on."""

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
        """The calling thread's stream."""
        current: _Current | None = getattr(self._threads, "current", None)
        if current is None:
            current = self._threads.current = _Current(RawStream(self._seed), self._seed)
        return current

    @property
    def seed(self) -> int:
        """The seed of the calling thread's stream."""
        return self.current().seed

    def random(self) -> SessionRandom:
        """The random numbers of one net; the thread's stream continues from net to net."""
        return SessionRandom(self)

    def set_mode(self, mode: str) -> None:
        """Choose what the nets made from now on compute on."""
        if self._made - {mode}:
            log.warning(
                "set_mode_%s: the nets made before stay where they are; set the mode before the "
                "first net, or make it again",
                mode,
            )
        self.mode = mode

    def set_random_seed(self, seed: int) -> None:
        """Restart the thread's stream, for its existing nets as well."""
        if not hasattr(seed, "__index__") or not 0 <= int(seed) < 2**32:
            raise CallError(
                f"set_random_seed: expected an integer of 0 to 4294967295, got {seed!r}; "
                "choose another seed"
            )
        self._set(int(seed), next(self._calls))

    def start_stream(self, seed: int) -> None:
        """Let the thread's next nets draw from a new stream; existing nets keep theirs.

        Only the seed's low 32 bits are used.
        """
        self._set(seed, 0)

    def _set(self, seed: int, number: int) -> None:
        self._threads.current = _Current(RawStream(seed), seed, number)
        if threading.current_thread() is threading.main_thread():
            self._seed = seed

    def backend(self) -> Backend:
        """The backend of the mode; one for each device, so that nets can share weights.

        Raises:
            DeviceError: no such device here.
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

    def require_one_solver(self) -> None:
        """Refuse the settings of Caffe's training on several devices.

        Raises:
            UnsupportedError: solver_count, solver_rank or multiprocess ask for it.
        """
        if self.solver_count != 1 or self.solver_rank != 0 or self.multiprocess:
            raise UnsupportedError(
                "pycaffe solver: trains on one device; expected solver_count 1, solver_rank 0 and "
                f"no multiprocess, got {self.solver_count}, {self.solver_rank}, "
                f"{self.multiprocess}; train on several with `verydeep train --gpu 0,1`"
            )


SESSION = Session()
"""The one of this process."""
