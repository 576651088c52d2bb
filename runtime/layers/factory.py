"""Creating layers by type. Caffe: LayerRegistry::CreateLayer in layer_factory.hpp."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from typing import Any

from prototxt_gen.errors import UnsupportedError
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.core.layer import Layer
from runtime.core.layer_registry import REGISTERED


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
        UnsupportedError: the type is unknown; the message starts with `label`.
    """
    _load_all()
    cls = REGISTERED.get(type_name)
    if cls is None:
        near = difflib.get_close_matches(type_name, REGISTERED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnsupportedError(
            f"{label}: unknown layer type '{type_name}'{hint} Known: {', '.join(layer_type_list())}"
        )
    return cls


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
