"""Divide the batch of a NetParameter into equal parts."""

from __future__ import annotations

from typing import Any

from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.proto import copy_of
from runtime.layers.factory import class_of, layer_type_list
from runtime.net.building import filter_net


def sources(param: Any) -> list[Any]:
    """The layers of a filtered net that provide its input data."""
    return [
        layer
        for layer in param.layer
        if not len(layer.bottom) and not class_of(layer.type).top_is_weight
    ]


def divisible_types() -> list[str]:
    """The types of sources whose batch can always be divided."""
    return [kind for kind in layer_type_list() if class_of(kind).divides_batch]


def batch_of_sources(param: Any, state: Any) -> int | None:
    """The batch of the data layers of a net; None if they differ or it cannot be divided.

    Data from the caller or from a stream of random numbers cannot be divided.
    """
    layers = sources(filter_net(param, state))
    sizes = {class_of(layer.type).divisible_batch(layer) for layer in layers}
    return sizes.pop() if len(sizes) == 1 else None


def cut_batch(param: Any, state: Any, parts: int) -> Any:
    """The net, filtered for a state, with its batch divided by `parts`.

    Raises:
        UnsupportedError: the batch of its data layers cannot be divided.
        ProtoError: the batch is not divisible by `parts`.
    """
    batch = batch_of_sources(param, state)
    if batch is None:
        types = ", ".join(layer.type for layer in sources(filter_net(param, state))) or "none"
        raise UnsupportedError(
            f"net '{param.name}': its batch cannot be split; expected data layers of one "
            f"batch_size, of the types {', '.join(divisible_types())}, or DummyData with "
            f"constants, got {types}; train it on one device, in one shard"
        )
    if batch % parts:
        raise ProtoError(
            f"net '{param.name}': the batch of {batch} is not divisible into {parts} equal parts; "
            f"expected a multiple of {parts}, got {batch}; change batch_size, or the number of "
            "devices or shards"
        )
    cut = copy_of(filter_net(param, state))
    for layer in sources(cut):
        class_of(layer.type).set_batch(layer, batch // parts)
    return cut
