"""Nets without fillers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def without_fillers(param: Any) -> Any:
    """The net with weights that begin as zeros: quick to make, for weights that are replaced.

    It takes no numbers from the random stream.
    """
    bare = type(param)()
    bare.CopyFrom(param)
    for layer in bare.layer:
        for settings, field in _weight_fillers(layer):
            settings.ClearField(field)
    return bare


def _weight_fillers(layer: Any) -> Iterable[tuple[Any, str]]:
    """A layer's fillers: the messages that have them, and the names of their fields."""
    for _, settings in layer.ListFields():
        if hasattr(settings, "ListFields"):
            for field, _ in settings.ListFields():
                if field.name.endswith("filler") and field.name != "data_filler":
                    yield settings, field.name
