"""Files of weights that a net starts from: the layers they fill need no first values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from prototxt_gen.errors import SnapshotError
from runtime.net import Net
from runtime.weights.copy_report import CopyReport
from runtime.weights.net_weights import copy_trained_layers
from runtime.weights.weights_file import open_weights

PathLike = str | os.PathLike[str]


def replaced_layers(
    param: Any, files: Iterable[PathLike], only: Collection[str] | None = None
) -> frozenset[str]:
    """The layers of a NetParameter whose weights copying these files replaces.

    With `only`, of these names. Of two layers of one name the second keeps what it has, so the name
    is left out.

    Raises:
        SnapshotError: a file is missing, damaged, or no file of weights.
    """
    counts = Counter(layer.name for layer in param.layer)
    found: set[str] = set()
    for file in files:
        with open_weights(file) as layers:
            found.update(layer.name for layer in layers if layer.blobs)
    return frozenset(n for n in found if counts[n] == 1 and (only is None or n in only))


def copy_weights(
    net: Net, files: Sequence[PathLike], strict: bool = False, allow_missing: bool = True
) -> None:
    """Copy files of weights in their order; the net is closed if they do not fit.

    Without `allow_missing`, every layer with weights must be in one of the files.

    Raises:
        SnapshotError, ShapeError: see copy_trained_layers.
    """
    try:
        reports = [copy_trained_layers(net, file, strict) for file in files]
        if not allow_missing:
            require_all(reports)
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
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise SnapshotError(
            f"{', '.join(report.path for report in reports)}: no weights for {len(missing)} of "
            f"the net's layers ({names}); expected weights for all of them; load the weights of "
            f"this net, or accept the initial values with {advice}\n{reports[-1].table()}"
        )
