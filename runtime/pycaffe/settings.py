"""Settings of the process: mode, device, seed, ranks, log; and a timer. Caffe: _caffe.cpp."""

from __future__ import annotations

import logging
import time

from runtime.layers.factory import layer_type_list
from runtime.logs.glog import caffe_log, setup_logging
from runtime.pycaffe.errors import CallError
from runtime.pycaffe.session import CPU, GPU, SESSION

__all__ = ["layer_type_list"]

_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def set_mode_cpu() -> None:
    """Make nets on the CPU from now on."""
    SESSION.set_mode(CPU)


def set_mode_gpu() -> None:
    """Make nets on the GPU from now on; without a GPU the next net raises DeviceError."""
    SESSION.set_mode(GPU)


def set_device(device: int) -> None:
    """Choose the GPU of nets that are made from now on.

    Raises:
        CallError: a negative number; also a RuntimeError.
    """
    if device < 0:
        raise CallError(f"set_device: expected a device number of at least 0, got {device}")
    SESSION.device = int(device)


def set_random_seed(seed: int) -> None:
    """Restart the random stream: fillers and dropout then draw the numbers that Caffe draws.

    Raises:
        CallError: not an integer of 0 to 2^32 - 1; also a RuntimeError.
    """
    SESSION.set_random_seed(seed)


def set_dropout_stream(name: str) -> None:
    """Choose the source of dropout masks of nets that are made from now on.

    "caffe", the default, gives the masks of original Caffe for the seed. "counter" gives masks that
    do not depend on earlier draws, as in `verydeep train`.

    Raises:
        CallError: another name; also a RuntimeError.
    """
    if name not in ("caffe", "counter"):
        raise CallError(f"set_dropout_stream: expected 'caffe' or 'counter', got {name!r}")
    SESSION.caffe_dropout = name == "caffe"


def solver_count() -> int:
    """The number of processes that train together."""
    return SESSION.solver_count


def set_solver_count(count: int) -> None:
    """Set the number of processes that train together, for solvers made from now on."""
    SESSION.solver_count = int(count)


def solver_rank() -> int:
    """The number of this process among those that train together."""
    return SESSION.solver_rank


def set_solver_rank(rank: int) -> None:
    """Set the number of this process, from 0, for solvers made from now on."""
    SESSION.solver_rank = int(rank)


def set_multiprocess(value: bool) -> None:
    """Do nothing: solvers of several ranks are in processes of their own here.

    In Caffe it distinguishes them from ranks that are threads of one process.
    """
    SESSION.multiprocess = bool(value)


def has_nccl() -> bool:
    """Whether NCCL can connect solvers: True on CPUs and GPUs."""
    return True


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Write the log to stderr in Caffe's form, from a level upwards (0 INFO .. 3 FATAL).

    Without this call only warnings and errors are logged.

    Raises:
        CallError: an unknown level; also a RuntimeError.
    """
    if not 0 <= level < len(_LEVELS):
        raise CallError(f"init_log: expected a level of 0 to {len(_LEVELS) - 1}, got {level}")
    setup_logging(_LEVELS[level])


def log(message: str) -> None:
    """Write a line to the log."""
    caffe_log("_caffe.cpp:84", "%s", message)


class Timer:
    """A stopwatch.

    Units: milliseconds.
    """

    def __init__(self) -> None:
        self._begin = self._end = 0.0

    def start(self) -> None:
        self._begin = time.perf_counter()

    def stop(self) -> None:
        self._end = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds between the last `start` and the `stop` after it."""
        return 1000.0 * (self._end - self._begin)
