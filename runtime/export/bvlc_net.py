"""A net as layers of BVLC Caffe, checked by the net's own results."""

from __future__ import annotations

from typing import Any

from prototxt_gen import proto
from prototxt_gen.dialects import BVLC, refusals
from prototxt_gen.errors import SnapshotError, UnsupportedError
from prototxt_gen.proto import Message, copy_of
from runtime.core.context import RunContext
from runtime.core.description import PlainLayer
from runtime.export.comparison import TOLERANCE, random_input, relative_difference
from runtime.net import Net
from runtime.net.building import filter_net, net_state


def bvlc_net(net: Net, param: Message) -> tuple[Message, Net]:
    """The NetParameter in layers of BVLC Caffe, and the net of it with the weights.

    `net` was built in the phase TEST from `param`. The caller closes the new net.

    Raises:
        UnsupportedError: a layer or field has no equivalent in BVLC Caffe; lists all of them.
        SnapshotError: the new net computes something else.
    """
    layers = _layers(net, param)
    result = proto.NetParameter(name=param.name)
    for layer in layers:
        result.layer.add().CopyFrom(layer.param)
    refused = refusals(result, BVLC)
    if refused:
        raise UnsupportedError(
            f"net '{net.name}': has no form in BVLC Caffe; expected its layers and fields, or ones "
            f"with an equivalent; export to another format\n{chr(10).join(refused)}"
        )
    other = Net(result, proto.TEST, net.backend, RunContext(fill_weights=False))
    try:
        _copy_weights(layers, other)
        _compare(net, other)
    except BaseException:
        other.close()
        raise
    return result, other


def _layers(net: Net, param: Message) -> list[PlainLayer]:
    layers: list[PlainLayer] = []
    for given in filter_net(param, net_state(proto.TEST)).layer:
        own = net.layer_by_name(given.name)
        if own is None:
            raise UnsupportedError(f"net '{net.name}': has no layer '{given.name}'")
        copy: Any = copy_of(given)
        layers += own.bvlc_form(copy)
    return layers


def _copy_weights(layers: list[PlainLayer], other: Net) -> None:
    for layer in layers:
        target = other.layer_by_name(layer.param.name)
        if target is not None:
            for blob, values in zip(target.blobs, layer.weights, strict=True):
                blob.data.mutable_host()[...] = values


def _compare(net: Net, other: Net) -> None:
    """Run both on the same random input, and compare what both have under one name."""
    for name in net.inputs:
        values = random_input(net, name)
        for each in (net, other):
            each.blobs[name].data.mutable_host()[...] = values
    net.forward()
    other.forward()
    for name in net.outputs:
        found = relative_difference(other.blobs[name].data.host(), net.blobs[name].data.host())
        if not found <= TOLERANCE:
            raise SnapshotError(
                f"net '{net.name}': its form in BVLC Caffe computes another blob '{name}'; "
                f"expected a difference of at most {TOLERANCE:g}, got {found:.2g}; nothing was "
                "written; export to another format"
            )
