"""The registry of layer types. Caffe: LayerRegistry in layer_factory.hpp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from runtime.core.layer import Layer

_REGISTRY: dict[str, type[Layer]] = {}

REGISTERED: Mapping[str, type[Layer]] = MappingProxyType(_REGISTRY)
"""Layer classes of the modules imported so far, by type. See runtime.layers.factory."""


def register(type_name: str) -> Callable[[type[Layer]], type[Layer]]:
    """Register a layer class under its type: `@register("Convolution")`.

    Raises:
        TypeError: another class has this type.
    """

    def enter(cls: type[Layer]) -> type[Layer]:
        if type_name in _REGISTRY and _REGISTRY[type_name].__qualname__ != cls.__qualname__:
            raise TypeError(f"layer type {type_name} is registered twice")
        cls.type = type_name
        _REGISTRY[type_name] = cls
        return cls

    return enter
