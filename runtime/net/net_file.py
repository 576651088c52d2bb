"""A net from its prototxt, with errors that say where in the file they are."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prototxt_gen import text
from prototxt_gen.locate import located
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.net.net import Net


def open_net(
    path: str | os.PathLike[str],
    phase: int,
    backend: Backend,
    context: RunContext | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
) -> Net:
    """Read a prototxt in any of Caffe's forms and build its net. See Net.

    Raises:
        ProtoError, ShapeError, UnsupportedError, DataError: with file, line and column.
    """
    param = text.read_net(path)
    with located(path):
        return Net(param, phase, backend, context, level, stages)
