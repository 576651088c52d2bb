"""The registry of layer types. Caffe: layer_factory.hpp."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from prototxt_gen.errors import UnsupportedError
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.core.layer import Layer

_REGISTRY: dict[str, type[Layer]] = {}


def register(type_name: str) -> Callable[[type[Layer]], type[Layer]]:
    """Enter a layer class under its type: `@register("Convolution")`."""

    def enter(cls: type[Layer]) -> type[Layer]:
        if type_name in _REGISTRY and _REGISTRY[type_name].__qualname__ != cls.__qualname__:
            raise TypeError(f"layer type {type_name} is registered twice")
        cls.type = type_name
        _REGISTRY[type_name] = cls
        return cls

    return enter


@functools.cache
def _load_all() -> None:
    package = importlib.import_module("runtime.layers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"runtime.layers.{module.name}")


def layer_type_list() -> list[str]:
    """All known types, sorted. Caffe: LayerRegistry::LayerTypeList."""
    _load_all()
    return sorted(_REGISTRY)


def layer_class(type_name: str, where: str) -> type[Layer]:
    """Look a type up.

    Raises:
        UnsupportedError: not known; lists what is.
    """
    _load_all()
    found = _REGISTRY.get(type_name)
    if found is None:
        near = difflib.get_close_matches(type_name, _REGISTRY, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnsupportedError(
            f"{where}: unknown layer type '{type_name}'{hint} Known: {', '.join(layer_type_list())}"
        )
    return found


def create_layer(param: Any, phase: int, backend: Backend, context: RunContext) -> Layer:
    """Make the layer that a LayerParameter describes; not set up yet."""
    cls = layer_class(param.type, f"layer '{param.name}'")
    return cls(param, phase, backend, context)
