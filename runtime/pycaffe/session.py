"""The mode, the device and the random stream of a process: pycaffe's API has them process-wide.

They live in one object, `SESSION`, and are read when pycaffe makes a net or a solver. Nothing else
in the runtime looks here: a net keeps the backend and the stream it was made with.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field

from prototxt_gen.errors import UnsupportedError
from runtime.backend.base import Backend
from runtime.backend.registry import create_backend
from runtime.context import RunContext
from runtime.pycaffe.errors import CallError
from runtime.rng import CaffeRandom

log = logging.getLogger("verydeep.pycaffe")

CPU, GPU = "cpu", "gpu"


@dataclass
class Session:
    """What `set_mode_cpu`, `set_device`, `set_random_seed` and their like act on."""

    mode: str = CPU
    device: int = 0
    seed: int = field(default_factory=lambda: secrets.randbits(31))
    solver_count: int = 1
    solver_rank: int = 0
    multiprocess: bool = False
    caffe_dropout: bool = True
    rng: CaffeRandom = field(init=False)
    _backends: dict[tuple[str, int], Backend] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Start the stream."""
        self.rng = CaffeRandom(self.seed)

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
        """Start the random stream anew."""
        if not hasattr(seed, "__index__") or not 0 <= int(seed) < 2**32:
            raise CallError(
                f"set_random_seed: expected an integer of 0 to 4294967295, got {seed!r}; "
                "choose another seed"
            )
        self.start_stream(int(seed))

    def start_stream(self, seed: int) -> None:
        """Draw from a new stream; only the seed's low 32 bits matter to it."""
        self.seed, self.rng = seed, CaffeRandom(seed)

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
        """A context for one net; the random stream goes on from net to net, as in Caffe."""
        return RunContext(
            seed=self.seed,
            rng=self.rng,
            allow_python_layers=True,
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
