"""Reduces a net to the layers between the images and the class scores before the softmax.

The dense form replaces fully connected layers by convolutions: the first as large as the map that
it reads, the others 1x1. It takes images of the crop's size or larger. Paper: section 3.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.heads import DENSE_SUFFIX
from prototxt_gen.proto import Message
from runtime.backend.base import Backend
from runtime.layers.factory import class_of, layer_type_list
from runtime.net.building import filter_net, net_state
from runtime.net.shape_net import shape_net


@dataclass(frozen=True)
class ScoreParam:
    """A net that ends at the blob `scores`; `crop` is the (H, W) of training.

    `names` maps names of layers in files of weights to renamed layers of the net. `left_out` are
    the names of removed layers.
    """

    param: Message
    scores: str
    crop: tuple[int, int]
    names: dict[str, str]
    left_out: frozenset[str] = frozenset()


def crop_form(model: Message, top: str | None = None) -> ScoreParam:
    """Reduce a train_val, deploy or dense net to the layers of its scores, or of the blob `top`.

    Raises:
        ProtoError: no softmax or accuracy reads the scores, there is no blob `top`, or the size of
            the input is unknown.
    """
    tested = filter_net(model, net_state(proto.TEST))
    scores = scores_blob(tested) if top is None else _existing(tested, top)
    needed, kept = {scores}, []
    for layer in reversed(tested.layer):
        if needed.intersection(layer.top):
            kept.append(layer)
            needed.update(layer.bottom)
    sources = [layer for layer in kept if not layer.bottom]
    if len(sources) != 1:
        raise ProtoError(
            f"net '{model.name}': scores must come from one layer of images; expected a Data or "
            f"Input layer, got {[str(layer.name) for layer in sources]}; give the train_val net"
        )
    crop = _image_size(sources[0], str(model.name))
    param = proto.NetParameter(name=model.name)
    source = param.layer.add(name=sources[0].name, type="Input", top=[sources[0].top[0]])
    source.input_param.shape.add(dim=(1, 3, *crop))
    for layer in reversed(kept):
        if layer.bottom:
            param.layer.add().CopyFrom(layer)
    names = {
        str(layer.name).removesuffix(DENSE_SUFFIX): str(layer.name)
        for layer in param.layer
        if layer.name.endswith(DENSE_SUFFIX)
    }
    left_out = frozenset() if top is None else _left_out(tested.layer, kept)
    return ScoreParam(param, scores, crop, names, left_out)


def _left_out(layers: Iterable[Message], kept: Iterable[Message]) -> frozenset[str]:
    """The names of the layers that are not kept, also as layers of a net that is not dense."""
    names = {str(layer.name) for layer in layers} - {str(layer.name) for layer in kept}
    return frozenset(names | {name.removesuffix(DENSE_SUFFIX) for name in names})


def dense_form(model: Message, backend: Backend, top: str | None = None) -> ScoreParam:
    """Return the reduced net with convolutions instead of fully connected layers.

    Raises:
        ProtoError: see `crop_form`.
        UnsupportedError: a layer cannot be applied to images of other sizes.
    """
    form = crop_form(model, top)
    shapes = {
        name: blob.shape for name, blob in shape_net(form.param, proto.TEST, backend).blobs.items()
    }
    names = dict(form.names)
    for layer in form.param.layer:
        shape = shapes[layer.bottom[0]] if layer.bottom else ()
        dense = class_of(layer.type).dense_form(layer, shape)
        if dense is None:
            raise UnsupportedError(
                f"net '{model.name}', layer '{layer.name}': a {layer.type} layer cannot be applied "
                "densely; expected convolutions, poolings, pointwise and fully connected layers; "
                "evaluate this net with --protocol multicrop"
            )
        if dense is not layer:
            names[str(layer.name)] = dense.name = f"{layer.name}{DENSE_SUFFIX}"
            layer.CopyFrom(dense)
    return dataclasses.replace(form, names=names)


def scores_blob(net: Message) -> str:
    """Return the blob of class scores that the softmax or accuracy reads, before global pooling.

    Raises:
        ProtoError: no layer reads scores.
    """
    for layer in net.layer:
        if class_of(layer.type).reads_scores and layer.bottom:
            name = str(layer.bottom[0])
            producer = next(other for other in net.layer if name in other.top)
            if class_of(producer.type).pools_globally(producer):
                return str(producer.bottom[0])
            return name
    readers = [kind for kind in layer_type_list() if class_of(kind).reads_scores]
    raise ProtoError(
        f"net '{net.name}': the blob of class scores is unknown; expected a layer of type "
        f"{', '.join(readers)} that reads it, got none; give the train_val or deploy net"
    )


def _existing(net: Message, top: str) -> str:
    tops = dict.fromkeys(str(name) for layer in net.layer for name in layer.top)
    if top not in tops:
        raise ProtoError(f"net '{net.name}': no blob '{top}'; expected one of {', '.join(tops)}")
    return top


def _image_size(source: Any, net: str) -> tuple[int, int]:
    if class_of(source.type).is_input and source.input_param.shape:
        dims = [int(d) for d in source.input_param.shape[0].dim]
        if len(dims) == 4 and dims[1] == 3:
            return dims[2], dims[3]
    side = int(source.transform_param.crop_size)
    if not side:
        raise ProtoError(
            f"net '{net}', layer '{source.name}': the size of the crops is unknown; expected "
            "crop_size, or an Input of shape (N,3,H,W); add one of them"
        )
    return side, side
