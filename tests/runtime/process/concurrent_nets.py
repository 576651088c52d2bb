"""Nets that use every kind of scratch memory, and their passes, for tests of threads and forks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from tests.runtime.small_nets import conv, input_layer, layer, net_param

FILLER = 'weight_filler { type: "xavier" }'
# The convolutions take the paths of first layers, of Winograd's transforms, of strides and groups.
LAYERS = (
    input_layer(2, 3, 32, 32)
    + conv("conv1", "data", 32, 3, f"pad: 1 {FILLER}")
    + layer("ReLU", "relu1", "conv1", top="conv1")
    + layer("LRN", "norm1", "conv1")
    + conv("conv2", "norm1", 32, 3, f"pad: 1 {FILLER}")
    + layer("Pooling", "pool2", "conv2", "pooling_param { kernel_size: 2 stride: 2 }")
    + conv("conv3", "pool2", 16, 5, f"stride: 2 group: 2 {FILLER}")
    + layer("BatchNorm", "bn", "conv3")
    + layer("InnerProduct", "fc", "bn", f"inner_product_param {{ num_output: 10 {FILLER} }}")
    + layer("Softmax", "prob", "fc")
)


def small_net(backend: Backend, seed: int) -> Net:
    """A net whose weights and input are a function of the seed."""
    context = RunContext(seed=seed, rng=CaffeRandom(seed))
    net = Net(net_param(LAYERS), proto.TEST, backend, context)
    images = np.random.default_rng(seed).standard_normal(net.blobs["data"].shape)
    net.blobs["data"].data.mutable_host()[...] = images
    return net


def outputs(net: Net) -> bytes:
    """One pass forward and backward: the outputs and all gradients."""
    net.clear_param_diffs()
    net.forward()
    top = net.blobs["prob"]
    top.diff.mutable_host()[...] = np.arange(top.count(), dtype=np.float32).reshape(top.shape)
    net.backward()
    arrays = [top.data, *(blob.diff for blob in net.params.learnable)]
    return b"".join(array.host().tobytes() for array in arrays)


def run_threads(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run each function in a thread, all at the same time; what they returned or raised."""
    results: list[Any] = [None] * len(functions)
    start = threading.Barrier(len(functions))

    def run(index: int) -> None:
        start.wait()
        try:
            results[index] = functions[index]()
        except Exception as error:  # noqa: BLE001  returned to the test
            results[index] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
