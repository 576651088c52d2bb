"""Labels as layers read them: whole numbers below the number of classes."""

from __future__ import annotations

import numpy as np

from prototxt_gen.errors import DataError
from runtime.core.blob import Blob


def check_labels(label: Blob, classes: int, ignore: int | None, where: str) -> None:
    """Refuse labels that name no class, before they index anything.

    Raises:
        DataError: names the first bad label, its place and the range.
    """
    values = label.data.host().ravel()
    bad = ~((values >= 0) & (values < classes))
    if ignore is not None:
        bad &= values != ignore
    if bad.any():
        place = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{where}: label {values[place]:g} at position {place} of blob '{label.name}'; "
            f"expected 0 .. {classes - 1}; correct the labels, or set num_output to the number of "
            "classes"
        )
