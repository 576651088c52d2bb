"""Network in Network, of Caffe's model zoo: convolutions followed by 1x1 convolutions.

Paper: Lin, Chen and Yan, Network In Network (2013).
"""

from __future__ import annotations

from prototxt_gen.net_layers import add_average, add_convolution, add_layer, learnt
from prototxt_gen.proto import Message
from prototxt_gen.spec import Initialisation, NetSpecification

NET = "NIN"
_BLOCKS = ((96, 11, 0, 4), (256, 5, 2, 1), (384, 3, 1, 1), (1024, 3, 1, 1))
"""Width, kernel, pad and stride of the first convolution of each block."""


def scores(net: Message, spec: NetSpecification, init: Initialisation | None) -> str:
    """Add the four blocks and the average of the class maps; see prototxt_gen.families."""
    top = "data"
    for number, (width, kernel, pad, stride) in enumerate(_BLOCKS, start=1):
        last = number == len(_BLOCKS)
        if last and spec.dropout:
            drop = add_layer(net, "Dropout", "drop", top, top)
            drop.dropout_param.dropout_ratio = spec.dropout
        wide = spec.scaled(width)
        top = _convolution(net, f"conv{number}", top, wide, kernel, pad, stride, init)
        for inner, outputs in enumerate((wide, spec.classes if last else wide)):
            top = _convolution(net, f"cccp{2 * number - 1 + inner}", top, outputs, 1, 0, 1, init)
        if not last:
            pooling = add_layer(net, "Pooling", f"pool{number}", top, f"pool{number}").pooling_param
            pooling.kernel_size, pooling.stride = 3, 2
            top = f"pool{number}"
    add_average(net, "score", top)
    return "score"


def _convolution(
    net: Message,
    name: str,
    bottom: str,
    width: int,
    kernel: int,
    pad: int,
    stride: int,
    init: Initialisation | None,
) -> str:
    layer = add_convolution(net, name, bottom, width, kernel, pad, stride)
    learnt(layer, layer.convolution_param, init)
    add_layer(net, "ReLU", f"relu_{name}", name, name)
    return name
