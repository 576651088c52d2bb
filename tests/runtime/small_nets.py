"""Nets of a few layers, written as text."""

from __future__ import annotations

from typing import Any

from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.net.shape_net import shape_net


def net_param(layers: str, name: str = "small") -> Any:
    return text.parse(f'name: "{name}"\n{layers}', proto.NetParameter)


def shapes_of(layers: str, phase: int = proto.TEST, **options: Any) -> Any:
    """The net of these layers in its shapes."""
    return shape_net(net_param(layers), phase, create_backend("cpu"), **options)


def input_layer(*shape: int, name: str = "data") -> str:
    dims = " ".join(f"dim: {d}" for d in shape)
    return (
        f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        f"input_param {{ shape {{ {dims} }} }} }}\n"
    )


def layer(kind: str, name: str, bottom: str, settings: str = "", top: str = "") -> str:
    bottoms = " ".join(f'bottom: "{b}"' for b in bottom.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{top or name}" {settings} }}\n'


def conv(name: str, bottom: str, width: int, kernel: int, settings: str = "") -> str:
    param = f"num_output: {width} kernel_size: {kernel} {settings}"
    return layer("Convolution", name, bottom, f"convolution_param {{ {param} }}")


def product(name: str, bottom: str, width: int, settings: str = "") -> str:
    param = f"inner_product_param {{ num_output: {width} }} {settings}"
    return layer("InnerProduct", name, bottom, param)
