"""Adds layers to a NetParameter, with the learning rates and fillers of a spec."""

from __future__ import annotations

from prototxt_gen.proto import Message
from prototxt_gen.spec import Initialisation

_GAUSSIAN_STD = {
    "gaussian": 0.01,
    "from-net-a": 0.01,
    # The paper gives "10^-2 variance".
    "paper-literal": 0.1,
}


def add_layer(net: Message, kind: str, name: str, bottom: str | None, top: str) -> Message:
    """Add a layer with at most one bottom, and return it."""
    layer = net.layer.add(name=name, type=kind)
    if bottom is not None:
        layer.bottom.append(bottom)
    layer.top.append(top)
    return layer


def add_convolution(
    net: Message, name: str, bottom: str, width: int, kernel: int, pad: int = 0, stride: int = 1
) -> Message:
    """Add a convolution whose top has its name, and return the layer."""
    layer = add_layer(net, "Convolution", name, bottom, name)
    param = layer.convolution_param
    param.num_output = width
    if pad:
        param.pad.append(pad)
    param.kernel_size.append(kernel)
    if stride != 1:
        param.stride.append(stride)
    return layer


def add_average(net: Message, name: str, bottom: str) -> None:
    """Add a global average pooling."""
    pooling = add_layer(net, "Pooling", name, bottom, name).pooling_param
    pooling.pool = pooling.AVE
    pooling.global_pooling = True


def learnt(layer: Message, param: Message, init: Initialisation | None) -> None:
    """Set learning rates (twice as large for the bias, which does not decay) and fillers.

    Args:
        layer: the layer.
        param: its convolution_param or inner_product_param.
        init: None for a net that is not trained, which has neither.
    """
    if init is None:
        return
    layer.param.add(lr_mult=1, decay_mult=1)
    layer.param.add(lr_mult=2, decay_mult=0)
    if init.method in _GAUSSIAN_STD:
        param.weight_filler.type = "gaussian"
        param.weight_filler.std = _GAUSSIAN_STD[init.method]
    else:
        param.weight_filler.type = init.method
    param.bias_filler.type = "constant"
    param.bias_filler.value = 0
