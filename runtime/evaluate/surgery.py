"""Any net of crops made a net of scores: an image comes in, class scores come out, before soft-max.

The dense form has convolutions for fully connected layers: the first as large as the map it reads,
the others 1x1, so that it takes images of any size from the crop's on. Paper: section 3.2.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.heads import DENSE_SUFFIX
from prototxt_gen.proto import Message
from runtime.backend.base import Backend
from runtime.net.building import filter_net, net_state
from runtime.net.shape_net import shape_net

INPUT = "data"
_READERS = ("Softmax", "SoftmaxWithLoss", "Accuracy")
_SPATIAL = frozenset(
    {
        *("Convolution", "Pooling", "LRN", "Dropout", "ReLU", "PReLU", "ELU", "Sigmoid", "TanH"),
        *("AbsVal", "BNLL", "Power", "BatchNorm", "Scale", "Bias", "Eltwise", "Concat", "Input"),
    }
)
"""Layers that give at each place of a larger image what they give on the crop around it."""


@dataclass(frozen=True)
class ScoreParam:
    """A net from `data` to `scores`; `crop` is the (H, W) it was trained on.

    `names` gives the net's name of a layer of the weights where surgery renamed it; `left_out` are
    names that layers cut off may have there.
    """

    param: Message
    scores: str
    crop: tuple[int, int]
    names: dict[str, str]
    left_out: frozenset[str] = frozenset()


def crop_form(model: Message, top: str | None = None) -> ScoreParam:
    """A train_val, deploy or dense net, cut down to what makes scores of crops, or the blob `top`.

    Raises:
        ProtoError: no soft-max or accuracy says which blob holds the scores, there is no such
            blob, or no input's size is known.
    """
    tested = filter_net(model, net_state(proto.TEST))
    scores = scores_blob(tested) if top is None else _known(tested, top)
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
    given = param.layer.add(name=sources[0].name, type="Input", top=[sources[0].top[0]])
    given.input_param.shape.add(dim=(1, 3, *crop))
    for layer in reversed(kept):
        if layer.bottom:
            param.layer.add().CopyFrom(layer)
    names = {
        str(layer.name).removesuffix(DENSE_SUFFIX): str(layer.name)
        for layer in param.layer
        if layer.name.endswith(DENSE_SUFFIX)
    }
    left_out: set[str] = set()
    if top is not None:
        left_out = {str(layer.name) for layer in tested.layer}
        left_out -= {str(layer.name) for layer in kept}
        left_out |= {name.removesuffix(DENSE_SUFFIX) for name in left_out}
    return ScoreParam(param, scores, crop, names, frozenset(left_out))


def dense_form(model: Message, backend: Backend, top: str | None = None) -> ScoreParam:
    """The same with every fully connected layer as a convolution.

    Raises:
        UnsupportedError: a layer whose result depends on the image's size as a whole.
    """
    form = crop_form(model, top)
    shapes = {
        name: blob.shape for name, blob in shape_net(form.param, proto.TEST, backend).blobs.items()
    }
    names = dict(form.names)
    for layer in form.param.layer:
        if layer.type == "InnerProduct":
            names[str(layer.name)] = f"{layer.name}{DENSE_SUFFIX}"
            _to_convolution(layer, shapes[layer.bottom[0]])
        elif layer.type not in _SPATIAL:
            raise UnsupportedError(
                f"net '{model.name}', layer '{layer.name}': a {layer.type} layer cannot be applied "
                "densely; expected convolutions, poolings, pointwise and fully connected layers; "
                "evaluate this net with --protocol multicrop"
            )
    return dataclasses.replace(form, names=names)


def scores_blob(net: Message) -> str:
    """The blob of class scores that the net's soft-max or accuracy reads, before an average of it.

    Raises:
        ProtoError: there is none.
    """
    for layer in net.layer:
        if layer.type in _READERS and layer.bottom:
            name = str(layer.bottom[0])
            maker = next(each for each in net.layer if name in each.top)
            if maker.type == "Pooling" and maker.pooling_param.global_pooling:
                return str(maker.bottom[0])
            return name
    raise ProtoError(
        f"net '{net.name}': which blob holds the class scores? expected a layer of type "
        f"{', '.join(_READERS)} that reads it, got none; give the train_val or deploy net"
    )


def _known(net: Message, top: str) -> str:
    tops = dict.fromkeys(str(name) for layer in net.layer for name in layer.top)
    if top not in tops:
        raise ProtoError(f"net '{net.name}': no blob '{top}'; expected one of {', '.join(tops)}")
    return top


def _image_size(source: Any, net: str) -> tuple[int, int]:
    if source.type == "Input" and source.input_param.shape:
        dims = [int(d) for d in source.input_param.shape[0].dim]
        if len(dims) == 4 and dims[1] == 3:
            return dims[2], dims[3]
    side = int(source.transform_param.crop_size)
    if not side:
        raise ProtoError(
            f"net '{net}', layer '{source.name}': the size of the net's crops is not known; "
            "expected crop_size, or an Input of shape (N,3,H,W); add it"
        )
    return side, side


def _to_convolution(layer: Any, bottom: tuple[int, ...]) -> None:
    old = proto.InnerProductParameter()
    old.CopyFrom(layer.inner_product_param)
    if old.axis != 1 or old.transpose:
        raise UnsupportedError(
            f"layer '{layer.name}': expected axis 1 and no transpose to make it a convolution, got "
            f"axis {old.axis}, transpose {bool(old.transpose)}; evaluate with --protocol multicrop"
        )
    layer.name, layer.type = f"{layer.name}{DENSE_SUFFIX}", "Convolution"
    layer.ClearField("inner_product_param")
    new = layer.convolution_param
    new.num_output, new.bias_term = old.num_output, old.bias_term
    new.kernel_h, new.kernel_w = bottom[2:] if len(bottom) == 4 else (1, 1)
