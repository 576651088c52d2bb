"""Converts a graph to half precision: weights and arithmetic in float16, inputs and outputs not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from prototxt_gen.errors import UnsupportedError
from runtime.export.onnx_graph import Array, Graph

FLOAT, INT64, HALF = 1, 7, 10
"""TensorProto.FLOAT, .INT64 and .FLOAT16."""
_WHOLE_NUMBERS = ("ArgMax", "Mod")


def to_half(graph: Graph, inputs: Iterable[str], outputs: Iterable[str], name: str) -> Graph:
    """The graph in float16, with float32 inputs and outputs; `name` is the net's.

    Raises:
        UnsupportedError: a weight exceeds the range of float16, or a value is an index.
    """
    result = Graph(opset=graph.opset, any_size=graph.any_size, taken=graph.taken)
    for key, value in graph.constants.items():
        result.constants[key] = _half(key, value, name) if value.dtype == np.float32 else value
    names = {key: result.node("Cast", [key], key, to=HALF)[0] for key in inputs}
    inner = {key: result.fresh(f"{key}/half") for key in dict.fromkeys(outputs) if key not in names}
    for node in graph.nodes:
        _cast_to_half(node, name)
        node.input[:] = [inner.get(key, names.get(key, key)) for key in node.input]
        node.output[:] = [inner.get(key, key) for key in node.output]
        result.nodes.append(node)
    for key, half in inner.items():
        _cast_to(result, half, key)
    return result


def _cast_to_half(node: Any, name: str) -> None:
    """Let a Cast node give float16; nodes with indices are refused."""
    casts = [attribute for attribute in node.attribute if node.op_type == "Cast"]
    if node.op_type in _WHOLE_NUMBERS or any(cast.i == INT64 for cast in casts):
        raise UnsupportedError(
            f"net '{name}': '{node.name}' has indices, which float16 does not hold exactly; "
            "expected a net without them; export it without --fp16"
        )
    for cast in casts:
        cast.i = HALF


def _cast_to(graph: Graph, value: str, output: str) -> None:
    (made,) = graph.node("Cast", [value], output, to=FLOAT)
    graph.nodes[-1].output[:] = [output]
    graph.nodes[-1].name = made


def _half(key: str, value: Array, name: str) -> Array:
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.array_equal(np.isfinite(half), np.isfinite(value)):
        raise UnsupportedError(
            f"net '{name}': '{key}' has values up to {np.abs(value).max():g}; expected at most "
            "65504, the largest of float16; export it without --fp16"
        )
    return half
