"""Puts the preparation of images into a graph: central crop, channel order, mean and scale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen.errors import ShapeError, UnsupportedError
from runtime.bundle.preprocessing import BGR, Preprocessing
from runtime.export.onnx_graph import Array, Graph
from runtime.export.onnx_half import FLOAT
from runtime.net import Net

IMAGES = "images"
"""The name of the input of images, (N,H,W,C) uint8, RGB for colour."""


def add_images(graph: Graph, net: Net, preparation: Preprocessing) -> str:
    """Put nodes from images to the input of a net before a graph; returns the new input's name.

    Raises:
        UnsupportedError: the net has several inputs.
        ShapeError: its input is not what the preparation makes.
    """
    target = image_input(net, preparation)
    value = graph.fresh(IMAGES)
    result, rest = value, list(graph.nodes)
    graph.nodes.clear()
    (result,) = graph.node("Cast", [result], "prepare", to=FLOAT)
    if not graph.any_size:
        result = _central_crop(graph, result, net.blobs[target].shape[2:], preparation.channels)
    (result,) = graph.node("Transpose", [result], "prepare", perm=[0, 3, 1, 2])
    if preparation.channel_order == BGR:
        order = graph.constant(np.array([2, 1, 0], np.int64), "prepare/order")
        (result,) = graph.node("Gather", [result, order], "prepare", axis=1)
    mean = np.array(preparation.mean_value or (0.0,), np.float32).reshape(1, -1, 1, 1)
    (result,) = graph.node("Sub", [result, graph.constant(mean, "prepare/mean")], "prepare")
    scale = graph.constant(np.float32(preparation.scale), "prepare/scale")
    graph.node("Mul", [result, scale], "prepare")
    graph.nodes[-1].output[:] = [target]
    graph.nodes.extend(rest)
    return value


def image_input(net: Net, preparation: Preprocessing) -> str:
    """The name of the net's only input, checked to take prepared images.

    Raises: see add_images.
    """
    if len(net.inputs) != 1:
        raise UnsupportedError(
            f"net '{net.name}': {len(net.inputs)} inputs; expected one, of images; export it "
            "without --preprocess"
        )
    shape = net.blobs[net.inputs[0]].shape
    if len(shape) != 4 or shape[1] != preparation.channels:
        raise ShapeError(
            f"net '{net.name}': input '{net.inputs[0]}' of shape {shape}; expected (N,"
            f"{preparation.channels},H,W) for {preparation.channel_order} images; correct the "
            "preprocessing"
        )
    return str(net.inputs[0])


def prepared(images: Array, net: Net, preparation: Preprocessing, any_size: bool) -> Array:
    """What the nodes of add_images compute.

    Shapes: images (N,H,W,C) uint8; result (N,C,h,w) float32.
    """
    if not any_size:
        height, width = net.blobs[net.inputs[0]].shape[2:]
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        images = images[:, top : top + height, left : left + width]
    values = images.transpose(0, 3, 1, 2).astype(np.float32)
    if preparation.channel_order == BGR:
        values = values[:, ::-1]
    mean = np.array(preparation.mean_value or (0.0,), np.float32).reshape(1, -1, 1, 1)
    return np.asarray((values - mean) * np.float32(preparation.scale), np.float32)


def metadata(preparation: Preprocessing | None, labels: Sequence[str]) -> dict[str, str]:
    """Labels and preparation as the texts that a model file holds."""
    result = {}
    if labels:
        result["labels"] = json.dumps(list(labels), ensure_ascii=False)
    if preparation is not None:
        result.update({key: _text(value) for key, value in preparation.to_json().items()})
    return result


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value)


def _central_crop(graph: Graph, value: str, size: Sequence[int], depth: int) -> str:
    """The centre of (N,H,W,C), with the corner rounded down; smaller images are an error."""
    (shape,) = graph.node("Shape", [value], "prepare")
    both = graph.constant(np.array([1, 2], np.int64), "prepare/axes")
    (have,) = graph.node("Gather", [shape, both], "prepare", axis=0)
    want = graph.constant(np.array(size, np.int64), "prepare/size")
    (spare,) = graph.node("Sub", [have, want], "prepare")
    two = graph.constant(np.array([2, 2], np.int64), "prepare/two")
    (corner,) = graph.node("Div", [spare, two], "prepare")
    (end,) = graph.node("Add", [corner, want], "prepare")
    (crop,) = graph.node("Slice", [value, corner, end, both], "prepare")
    # Slice takes what there is of a smaller image; a Reshape to the size is an error then.
    shape = graph.constant(np.array([0, *size, depth], np.int64), "prepare/crop")
    return graph.node("Reshape", [crop, shape], "prepare")[0]
