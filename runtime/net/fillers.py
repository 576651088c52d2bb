"""Remove the fillers of a net."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prototxt_gen.proto import copy_of


def without_fillers(param: Any) -> Any:
    """A copy of a net without weight fillers, for weights that are replaced after it is built.

    Building it is fast and draws no random numbers.
    """
    bare = copy_of(param)
    for layer in bare.layer:
        for settings, field in _weight_fillers(layer):
            settings.ClearField(field)
    return bare


def _weight_fillers(layer: Any) -> Iterable[tuple[Any, str]]:
    """The messages of a layer that have fillers, and the names of these fields."""
    for _, settings in layer.ListFields():
        if hasattr(settings, "ListFields"):
            for field, _ in settings.ListFields():
                if field.name.endswith("filler") and field.name != "data_filler":
                    yield settings, field.name
