"""A small net of the paper's kind, built for TEST on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from prototxt_gen import proto, text
from prototxt_gen.upgrade import upgrade_net
from runtime.backend.registry import create_backend
from runtime.net import Net

SMALL = """
name: "small"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 13 dim: 13 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { alpha: 0.1 } }
layer { name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "fc6" type: "InnerProduct" bottom: "pool1" top: "fc6"
  inner_product_param { num_output: 8 } }
layer { name: "drop6" type: "Dropout" bottom: "fc6" top: "fc6" }
layer { name: "fc7" type: "InnerProduct" bottom: "fc6" top: "fc7"
  inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc7" top: "prob" }
"""


@contextmanager
def build(prototxt: str, phase: int = 1, seed: int | None = None) -> Iterator[Net]:
    """The net of a prototxt; with a seed, its weights and inputs are random."""
    param = text.parse(prototxt, proto.NetParameter)
    upgrade_net(param, "net")
    with Net(param, phase, create_backend("cpu")) as net:
        if seed is not None:
            rng = np.random.default_rng(seed)
            inputs = [net.blobs[name] for name in net.inputs]
            for blob in [*net.params.learnable, *inputs]:
                blob.data.mutable_host()[...] = rng.standard_normal(blob.shape)
        yield net


def weights(net: Net) -> dict[str, list[Any]]:
    """A copy of every weight, by layer."""
    return {
        layer.param.name: [blob.data.host().copy() for blob in layer.blobs]
        for layer in net.layers
        if layer.blobs
    }


def same_weights(net: Net, expected: dict[str, list[Any]]) -> bool:
    """Whether the net has exactly these weights."""
    found = weights(net)
    return found.keys() == expected.keys() and all(
        np.array_equal(mine, theirs)
        for name in expected
        for mine, theirs in zip(found[name], expected[name], strict=True)
    )
