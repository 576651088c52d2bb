"""Small nets for the tests of replaying."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver
from tests.runtime.small_nets import conv, input_layer, layer, net_param

XAVIER = 'weight_filler { type: "xavier" }'


def dense(name: str, bottom: str, outputs: int) -> str:
    param = f"inner_product_param {{ num_output: {outputs} {XAVIER} }}"
    return layer("InnerProduct", name, bottom, param)


LAYERS = (
    conv("conv1", "data", 5, 3, f"pad: 1 {XAVIER}")
    + layer("ReLU", "relu1", "conv1", top="conv1")
    + layer("LRN", "norm1", "conv1", "lrn_param { alpha: 0.1 }")
    + layer("Pooling", "pool1", "norm1", "pooling_param { kernel_size: 2 stride: 2 }")
    + dense("fc2", "pool1", 8)
    + layer("ReLU", "relu2", "fc2", top="fc2")
    + layer("Dropout", "drop2", "fc2", top="fc2")
    + dense("fc3", "fc2", 3)
)
DRAWN = """layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
"""
LOSS = layer("SoftmaxWithLoss", "loss", "fc3 label")
INPUTS = input_layer(4, 3, 8, 8) + input_layer(4, name="label")
TRAINED = INPUTS + LAYERS + LOSS
SOLVER = """base_lr: 0.05 weight_decay: 0.01 max_iter: 20 random_seed: 4
snapshot_after_train: false """


@contextmanager
def built(
    layers: str, phase: int = proto.TRAIN, device: str = "emu", **options: Any
) -> Iterator[Net]:
    """A net with random weights; its inputs are filled by `feed`."""
    context = RunContext(seed=3, rng=CaffeRandom(3))
    with Net(net_param(layers), phase, create_backend(device, **options), context) as net:
        yield net


def feed(net: Net, seed: int) -> None:
    """New images and labels."""
    rng = np.random.default_rng(seed)
    net.blobs["data"].data.mutable_host()[...] = rng.standard_normal(net.blobs["data"].shape)
    if "label" in net.blobs:
        net.blobs["label"].data.mutable_host()[...] = rng.integers(0, 3, net.blobs["label"].shape)


def passes(net: Net, count: int, first: int = 0) -> list[Any]:
    """The loss and every gradient of so many passes, each with images of its own."""
    found: list[Any] = []
    for seed in range(first, first + count):
        feed(net, seed)
        net.clear_param_diffs()
        found.append(net.forward())
        net.backward()
        found += [blob.diff.host().copy() for blob in net.params.learnable]
    return found


def trained(device: str, settings: str, share: bool = False, **options: Any) -> Solver:
    """A solver after twelve updates."""
    param = text.parse(SOLVER + settings, proto.SolverParameter)
    if param.type == "SGD":
        param.momentum = 0.9
    param.net_param.CopyFrom(net_param(DRAWN + LAYERS + LOSS))
    backend = create_backend(device, **options)
    solver = Solver(param, backend, SolverOptions(share_activations=share))
    solver.step(12)
    return solver


def weights(solver: Solver) -> list[Any]:
    return [blob.data.host().copy() for blob in solver.net.params.learnable]


def same(found: list[Any], expected: list[Any]) -> bool:
    """Whether these are the same bits."""
    return len(found) == len(expected) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(found, expected)
    )


def replays(net: Net) -> int:
    backend: Any = net.backend
    return 0 if backend.recorder is None else int(backend.recorder.replays)


def launches(net: Net) -> int:
    backend: Any = net.backend
    return int(backend.launches)
