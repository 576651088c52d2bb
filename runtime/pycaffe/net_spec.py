"""NetSpec under pycaffe's module name; it lives in prototxt_gen. Caffe: net_spec.py."""

from __future__ import annotations

from prototxt_gen.netspec import (
    Function,
    Layers,
    NetSpec,
    Parameters,
    Top,
    assign_proto,
    layers,
    params,
    to_proto,
)

__all__ = [
    "Function",
    "Layers",
    "NetSpec",
    "Parameters",
    "Top",
    "assign_proto",
    "layers",
    "params",
    "to_proto",
]
