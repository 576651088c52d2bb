"""Layers created by type. Caffe: LayerRegistry::CreateLayer in layer_factory.hpp."""

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
    """All known types, sorted. Caffe: LayerRegistry::LayerTypeList."""
    _load_all()
    return sorted(REGISTERED)


def layer_class(type_name: str, where: str) -> type[Layer]:
    """Look a type up.

    Raises:
        UnsupportedError: not known; lists what is.
    """
    _load_all()
    found = REGISTERED.get(type_name)
    if found is None:
        near = difflib.get_close_matches(type_name, REGISTERED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnsupportedError(
            f"{where}: unknown layer type '{type_name}'{hint} Known: {', '.join(layer_type_list())}"
        )
    return found


def class_of(type_name: str) -> type[Layer]:
    """The class of a type, for what it declares; Layer, with the defaults, if it is not known."""
    _load_all()
    return REGISTERED.get(type_name, Layer)


def create_layer(param: Any, phase: int, backend: Backend, context: RunContext) -> Layer:
    """Make the layer that a LayerParameter describes; not set up yet."""
    cls = layer_class(param.type, f"layer '{param.name}'")
    return cls(param, phase, backend, context)
