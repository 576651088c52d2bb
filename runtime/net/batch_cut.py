"""Cutting the batch of a net into equal parts, in its NetParameter."""

from __future__ import annotations

from typing import Any

from prototxt_gen.errors import ProtoError, UnsupportedError
from runtime.net.building import filter_net

BATCH_PARAMS = {
    "Data": "data_param",
    "ImageData": "image_data_param",
    "HDF5Data": "hdf5_data_param",
}
"""Data layers whose samples depend on their number alone, and where their batch is said."""


def sources(param: Any) -> list[Any]:
    """The layers through which data comes into a filtered net."""
    return [layer for layer in param.layer if not len(layer.bottom) and layer.type != "Parameter"]


def batch_of_sources(param: Any, state: Any) -> int | None:
    """The batch that all data layers of a net agree on; None where it cannot be cut.

    It cannot where data comes from the caller or from a stream of random numbers.
    """
    found = sources(filter_net(param, state))
    sizes = {_batch(layer) for layer in found}
    return sizes.pop() if len(sizes) == 1 else None


def cut_batch(param: Any, state: Any, parts: int) -> Any:
    """The net, filtered for its state, for a batch of 1/parts.

    Raises:
        UnsupportedError: its data layers cannot be cut.
        ProtoError: the batch is not divisible.
    """
    batch = batch_of_sources(param, state)
    if batch is None:
        raise UnsupportedError(
            f"net '{param.name}': its batch cannot be split; expected data layers of one "
            f"batch_size, of the types {', '.join(BATCH_PARAMS)}, or DummyData with constants, got "
            f"{', '.join(layer.type for layer in sources(filter_net(param, state))) or 'none'}; "
            "train it on one device, in one shard"
        )
    if batch % parts:
        raise ProtoError(
            f"net '{param.name}': the batch of {batch} is not divisible into {parts} equal parts; "
            f"expected a multiple of {parts}, got {batch}; change batch_size, or the number of "
            "devices or shards"
        )
    cut = type(param)()
    cut.CopyFrom(filter_net(param, state))
    for layer in sources(cut):
        if layer.type in BATCH_PARAMS:
            getattr(layer, BATCH_PARAMS[layer.type]).batch_size = batch // parts
            continue
        dummy = layer.dummy_data_param
        for shape in dummy.shape:
            shape.dim[0] = batch // parts
        if len(dummy.num):
            dummy.num[:] = [batch // parts] * len(dummy.num)
    return cut


def _batch(layer: Any) -> int | None:
    if layer.type in BATCH_PARAMS:
        return int(getattr(layer, BATCH_PARAMS[layer.type]).batch_size)
    if layer.type == "DummyData":
        dummy = layer.dummy_data_param
        firsts = {int(shape.dim[0]) for shape in dummy.shape if len(shape.dim)} | set(dummy.num)
        if len(firsts) == 1 and all(f.type == "constant" for f in dummy.data_filler):
            return int(firsts.pop())
    return None
