"""Whether one device may cut a batch into shards without losing time over it.

Each shard after the first costs some passes over the gradient, whose length is the number of
parameters, and one more round of calls. A shard's arithmetic has to be large beside both; then
the cost stays below 3 % (benchmarks/parallel.py measures it). The paper's nets pass at batch 256,
with more than 1,500 multiply-adds a parameter; small nets, and nets that are mostly
fully-connected, do not.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from runtime.analysis.summary import summarize
from runtime.backend.registry import create_backend
from runtime.net.shape_net import shape_net
from runtime.solvers.nets import NetSource

LEAST_WORK = 10**10
"""Multiply-adds of a shard's forward pass."""
LEAST_REUSE = 1024
"""The same for each parameter."""


def is_worth_it(source: NetSource, images: int) -> bool:
    """Whether shards of so many images are large enough, by the net's shapes alone.

    Raises:
        ProtoError, ShapeError, UnsupportedError, DataError: the net cannot be built.
    """
    multiply_adds, parameters = _size(source)
    work = multiply_adds * images
    return work >= LEAST_WORK and work >= LEAST_REUSE * parameters


def _size(source: NetSource) -> tuple[int, int]:
    """Multiply-adds of one image's forward pass, and parameters."""
    state: Any = source.state
    with (
        _silence("verydeep.net"),
        shape_net(
            source.param,
            state.phase,
            create_backend("cpu", threads=1),
            level=state.level,
            stages=list(state.stage),
            batch=1,
        ) as net,
    ):
        rows = summarize(net).rows
    return sum(row.multiply_adds for row in rows), sum(row.parameters for row in rows)


@contextlib.contextmanager
def _silence(name: str) -> Iterator[None]:
    """Leave out a logger's lines: the net that is trained will say them."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
