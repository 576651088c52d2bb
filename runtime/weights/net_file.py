"""A net from its prototxt and files of weights; errors name the place in the prototxt."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prototxt_gen import text
from prototxt_gen.locate import located
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.weights.initial_weights import copy_weights, replaced_layers


def open_net(
    path: str | os.PathLike[str],
    phase: int,
    backend: Backend,
    context: RunContext | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    weights: Sequence[str | os.PathLike[str]] = (),
    allow_missing: bool = True,
) -> Net:
    """Read a prototxt in any of Caffe's forms, build its net and copy files of weights into it.

    Without `allow_missing`, every layer with weights must be in one of the files.

    Raises:
        ProtoError, ShapeError, UnsupportedError, DataError: with file, line and column.
        SnapshotError, ShapeError: weights that cannot be read, or do not fit.
    """
    param = text.read_net(path)
    context = context if context is not None else RunContext()
    context.replaced = replaced_layers(param, weights)
    with located(path):
        net = Net(param, phase, backend, context, level, stages)
    copy_weights(net, weights, allow_missing=allow_missing)
    return net
