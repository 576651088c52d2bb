"""Build nets from prototxt files, and copy the files of weights that they start from."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from prototxt_gen import text
from prototxt_gen.errors import SnapshotError
from prototxt_gen.locate import located
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.weights.net_weights import CopyReport, copy_trained_layers
from runtime.weights.weights_file import open_weights

log = logging.getLogger("verydeep.weights")

PathLike = str | os.PathLike[str]


def open_net(
    path: PathLike,
    phase: int,
    backend: Backend,
    context: RunContext | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    weights: Sequence[PathLike] = (),
    allow_missing: bool = True,
) -> Net:
    """Read a prototxt in any of Caffe's forms, build its net and copy files of weights into it.

    Without `allow_missing`, every layer with weights must be in one of the files.

    Raises:
        ProtoError, ShapeError, UnsupportedError, DataError: see Net; with file, line and column.
        SnapshotError, ShapeError: the weights cannot be read, or do not fit.
    """
    param = text.read_net(path)
    context = context if context is not None else RunContext()
    context.replaced = replaced_layers(param, weights)
    with located(path):
        net = Net(param, phase, backend, context, level, stages)
    copy_weights(net, weights, allow_missing=allow_missing)
    return net


def replaced_layers(
    param: Any, files: Iterable[PathLike], only: Collection[str] | None = None
) -> frozenset[str]:
    """The layers of a NetParameter whose weights a copy of these files replaces.

    Their fillers need not run. `only` limits the result to these names. If two layers have one
    name, only the first gets the weights, so the name is left out.

    Raises:
        SnapshotError: a file is missing, damaged, or no file of weights.
    """
    counts = Counter(layer.name for layer in param.layer)
    names: set[str] = set()
    for file in files:
        with open_weights(file) as layers:
            names.update(layer.name for layer in layers if layer.blobs)
    return frozenset(n for n in names if counts[n] == 1 and (only is None or n in only))


def copy_weights(
    net: Net, files: Sequence[PathLike], strict: bool = False, allow_missing: bool = True
) -> None:
    """Copy files of weights in their order; the net is closed if they do not fit.

    Without `allow_missing`, every layer with weights must be in one of the files, and weights that
    are in a file only are logged as a warning.

    Raises:
        SnapshotError, ShapeError: see copy_trained_layers.
    """
    try:
        reports = [copy_trained_layers(net, file, strict) for file in files]
        if not allow_missing:
            require_all(reports)
            _warn_of_unused(reports)
    except BaseException:
        net.close()
        raise


def require_all(reports: Sequence[CopyReport], advice: str = "--allow-missing") -> None:
    """Refuse a net with layers whose weights are in none of the files.

    Raises:
        SnapshotError: lists the layers, and the layers of the last file.
    """
    missing = [n for n in reports[0].missing if all(n in r.missing for r in reports)]
    if missing:
        raise SnapshotError(
            f"{', '.join(report.path for report in reports)}: no weights for {len(missing)} of "
            f"the net's layers ({_listed(missing)}); expected weights for all of them; load the "
            f"weights of this net, or accept the initial values with {advice}\n"
            f"{reports[-1].table()}"
        )


def _warn_of_unused(reports: Sequence[CopyReport]) -> None:
    for report in reports:
        if report.loaded and report.unused:
            log.warning(
                "%s: %d layers of the file are not in the net (%s); their weights are not used",
                report.path,
                len(report.unused),
                _listed(list(report.unused)),
            )


def _listed(names: Sequence[str]) -> str:
    """The first five names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
