"""The forms in which pycaffe's Net is constructed."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from prototxt_gen import proto
from prototxt_gen.destination import current_folder
from runtime.pycaffe.errors import ArgumentError, MissingFileError

log = logging.getLogger("verydeep.pycaffe")

PathLike: TypeAlias = "str | os.PathLike[str]"

_FORMS = (
    "Net(network_file, phase, level=0, stages=None, weights=None) or "
    "Net(network_file, weights_file, phase)"
)


@dataclass(frozen=True)
class NetArguments:
    """What a net is made of."""

    phase: int
    level: int = 0
    stages: Sequence[str] = ()
    weights: PathLike | None = None


def read_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> NetArguments:
    """Tell the forms apart, by what follows the network file.

    Raises:
        ArgumentError: no form of pycaffe's.
    """
    if len(args) == 2 and not kwargs and isinstance(args[0], (str, os.PathLike)):
        log.warning(
            "Net(network_file, weights_file, phase) is deprecated in pycaffe; "
            "Net(network_file, phase, weights=weights_file) says the same"
        )
        return _named(args[1], weights=args[0])
    try:
        return _named(*args, **kwargs)
    except TypeError as cause:
        fault = str(cause).replace("_named() ", "")
        raise ArgumentError(f"Net: {fault}; expected {_FORMS}") from cause


def _named(
    phase: int,
    level: int = 0,
    stages: Sequence[str] | None = None,
    weights: PathLike | None = None,
) -> NetArguments:
    if phase not in (proto.TRAIN, proto.TEST):
        raise ArgumentError(
            f"Net: phase is {phase!r}; expected TRAIN (0) or TEST (1), in one of the forms {_FORMS}"
        )
    if isinstance(stages, str):
        raise ArgumentError(
            f"Net: stages is the string {stages!r}; expected a list of names: stages=[{stages!r}]"
        )
    return NetArguments(int(phase), int(level), tuple(stages or ()), weights)


def require_file(path: PathLike) -> Path:
    """Make sure that a file can be opened, as pycaffe does before all else.

    Raises:
        MissingFileError: it cannot; also a RuntimeError.
    """
    try:
        with Path(path).open("rb"):
            return Path(path)
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise MissingFileError(
            f"Could not open file {path}: {reason}; expected a file that can be read; check the "
            f"path (the current folder is {current_folder()})"
        ) from cause
