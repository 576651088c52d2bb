"""Files of weights that a net starts from: the layers they fill need no first values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from runtime.net import Net
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


def copy_weights(net: Net, files: Iterable[PathLike], strict: bool = False) -> None:
    """Copy files of weights in their order; a net that they do not fit is closed.

    Raises:
        SnapshotError, ShapeError: see copy_trained_layers.
    """
    try:
        for file in files:
            copy_trained_layers(net, file, strict)
    except BaseException:
        net.close()
        raise
