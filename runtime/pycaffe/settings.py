"""The module functions that set and ask what is process-wide: mode, device, seed, log."""

from __future__ import annotations

import logging
import time

from prototxt_gen.errors import UnsupportedError
from runtime.layers.factory import layer_type_list
from runtime.logs.glog import caffe_log, setup_logging
from runtime.pycaffe.errors import CallError
from runtime.pycaffe.session import CPU, GPU, SESSION

__all__ = ["layer_type_list"]

_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def set_mode_cpu() -> None:
    """Let nets made from now on compute on the CPU."""
    SESSION.set_mode(CPU)


def set_mode_gpu() -> None:
    """Let nets made from now on compute on the GPU; making one fails where there is none."""
    SESSION.set_mode(GPU)


def set_device(device: int) -> None:
    """Choose the GPU for nets made from now on."""
    if device < 0:
        raise CallError(f"set_device: expected a device number of at least 0, got {device}")
    SESSION.device = int(device)


def set_random_seed(seed: int) -> None:
    """Start the random stream anew: fillers and dropout then draw what they draw in Caffe."""
    SESSION.set_random_seed(seed)


def set_dropout_stream(name: str) -> None:
    """Choose what nets made from now on draw dropout masks from: "caffe" or "counter".

    Of "caffe", the default, come the masks of original Caffe for the seed. Of "counter" come masks
    that do not depend on what was drawn before, as `verydeep train` has them.
    """
    if name not in ("caffe", "counter"):
        raise CallError(f"set_dropout_stream: expected 'caffe' or 'counter', got {name!r}")
    SESSION.caffe_dropout = name == "caffe"


def solver_count() -> int:
    return SESSION.solver_count


def set_solver_count(count: int) -> None:
    """Remember it; a solver is then refused unless it is 1."""
    SESSION.solver_count = int(count)


def solver_rank() -> int:
    return SESSION.solver_rank


def set_solver_rank(rank: int) -> None:
    """Remember it; a solver is then refused unless it is 0."""
    SESSION.solver_rank = int(rank)


def set_multiprocess(value: bool) -> None:
    """Remember it; a solver is then refused unless it is false."""
    SESSION.multiprocess = bool(value)


def has_nccl() -> bool:
    """Whether solvers can be joined by NCCL through this module: they cannot."""
    return False


class NCCL:
    """Stands for pycaffe's class of this name, which is not offered."""

    def __init__(self, solver: object, uid: str) -> None:
        raise UnsupportedError(
            "NCCL: pycaffe's way of joining the solvers of several processes is not offered; "
            "expected has_nccl() to be asked first; train on several GPUs with "
            "`verydeep train --gpu 0,1`"
        )


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Show the log on stderr in Caffe's form, from this level on (0 INFO .. 3 FATAL).

    Until this is called the process logs warnings and errors alone.
    """
    if not 0 <= level < len(_LEVELS):
        raise CallError(f"init_log: expected a level of 0 to {len(_LEVELS) - 1}, got {level}")
    setup_logging(_LEVELS[level])


def log(message: str) -> None:
    """Write a line to the log."""
    caffe_log("_caffe.cpp:84", "%s", message)


class Timer:
    """A stopwatch in milliseconds."""

    def __init__(self) -> None:
        self._begin = self._end = 0.0

    def start(self) -> None:
        self._begin = time.perf_counter()

    def stop(self) -> None:
        self._end = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds between the last start and the stop after it."""
        return 1000.0 * (self._end - self._begin)
