"""The fillers of a NetParameter: which layers begin as random numbers, and nets without fillers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from runtime.core.filler import RANDOM


def without_fillers(param: Any, names: Collection[str] | None = None) -> Any:
    """The net with weights that begin as zeros: quick to make, for weights that are replaced.

    With `names`, in layers of these names only.
    """
    bare = type(param)()
    bare.CopyFrom(param)
    for layer in bare.layer:
        if names is None or layer.name in names:
            for settings, field in _weight_fillers(layer):
                settings.ClearField(field)
    return bare


def draws_when_made(layer: Any) -> bool:
    """Whether the weights of a layer begin as random numbers."""
    return any(getattr(found, field).type in RANDOM for found, field in _weight_fillers(layer))


def draws_when_run(layer: Any) -> bool:
    """Whether a layer takes random numbers from the stream of the fillers in every pass."""
    return any(filler.type in RANDOM for filler in layer.dummy_data_param.data_filler)


def _weight_fillers(layer: Any) -> Iterable[tuple[Any, str]]:
    """Where a layer's fillers stand: the message and the name of the field."""
    for _, settings in layer.ListFields():
        if hasattr(settings, "ListFields"):
            for field, _ in settings.ListFields():
                if field.name.endswith("filler") and field.name != "data_filler":
                    yield settings, field.name
