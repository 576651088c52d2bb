"""Creating layers by type. Caffe: LayerRegistry::CreateLayer in layer_factory.hpp."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from prototxt_gen.dialects import origin, titles
from prototxt_gen.errors import UnsupportedError
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.core.layer import Layer
from runtime.core.layer_registry import REGISTERED

_SPELT_ALIKE = 0.85
"""The least similarity of a name that an error proposes: a typing error, not another layer."""


@functools.cache
def _load_all() -> None:
    package = importlib.import_module("runtime.layers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"runtime.layers.{module.name}")


def layer_type_list() -> list[str]:
    """All layer types, sorted. Caffe: LayerRegistry::LayerTypeList."""
    _load_all()
    return sorted(REGISTERED)


def layer_class(type_name: str, label: str) -> type[Layer]:
    """The class of a layer type.

    Raises:
        UnsupportedError: the type is unknown; the message starts with `label` and names the
            dialects of Caffe that have the type.
    """
    _load_all()
    cls = REGISTERED.get(type_name)
    if cls is None:
        raise UnsupportedError(f"{label}: unknown layer type {_described(type_name)}; {_WAY_OUT}")
    return cls


_WAY_OUT = "expected types of the reference page; define the others as Python layers or remove them"


def require_types(layers: Iterable[Any]) -> None:
    """Check that every LayerParameter has a known type.

    Raises:
        UnsupportedError: there are unknown types; the message lists all.
    """
    _load_all()
    users: dict[str, list[str]] = {}
    for layer in layers:
        if layer.type not in REGISTERED:
            users.setdefault(str(layer.type), []).append(str(layer.name))
    if not users:
        return
    first = next(iter(users.values()))[0]
    if len(users) == 1:
        layer_class(next(iter(users)), f"layer '{first}'")
    missing = ", ".join(
        f"{_described(kind)} in {len(names)} layer{'s' * (len(names) > 1)}"
        for kind, names in users.items()
    )
    raise UnsupportedError(
        f"layer '{first}': unknown layer types in the net: {missing}; {_WAY_OUT}"
    )


def _described(type_name: str) -> str:
    """An unknown type, with its dialects, or with a known type of similar spelling."""
    dialects = origin(type_name)
    if dialects:
        return f"'{type_name}' (of {titles(dialects)})"
    alike = [name for name in REGISTERED if abs(len(name) - len(type_name)) <= 1]
    near = difflib.get_close_matches(type_name, alike, n=1, cutoff=_SPELT_ALIKE)
    return f"'{type_name}'" + (f" (did you mean {near[0]}?)" if near else "")


def class_of(type_name: str) -> type[Layer]:
    """The class of a layer type, to read its attributes; Layer, with the defaults, if unknown."""
    _load_all()
    return REGISTERED.get(type_name, Layer)


def create_layer(param: Any, phase: int, backend: Backend, context: RunContext) -> Layer:
    """Create the layer of a LayerParameter, without setting it up.

    Raises:
        UnsupportedError: its type is unknown.
    """
    cls = layer_class(param.type, f"layer '{param.name}'")
    return cls(param, phase, backend, context)
