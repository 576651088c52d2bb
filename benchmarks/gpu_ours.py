"""This project's contestants on a GPU: vector ops, convolutions, and steps of nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpu_cases
import numpy as np
from vgg_nets import fed, specification

from prototxt_gen import heads, proto
from prototxt_gen.geometry import PoolGeometry
from runtime.backend.base import Draw, Epilogue, Layout
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.solvers.solver import Solver

Work = Callable[[], object]
FLOAT = np.dtype(np.float32)
_DRAWN = 1 << 20


# Steps until repeated work is in graphs: inference caches filters from its second pass on.
SETTLED = 6


def open_device(device: str, precision: str = "fp32", replay: bool = True) -> Any:
    """Open a separate backend, whose memory is freed with it."""
    return create_backend(device, precision=precision, replay=replay)


def array(backend: Any, *shape: int, dtype: np.dtype[Any] = FLOAT) -> Any:
    """An array on the device: normally distributed floats, zeros for other types.

    Shapes: `shape`.
    """
    device = backend.memory.view(
        backend.memory.empty(int(np.prod(shape, dtype=np.int64)), dtype), 0, shape
    )
    if dtype == FLOAT:
        spread(backend, device)
    else:
        backend.memory.upload(np.zeros(shape, dtype), device)
    return device


def spread(backend: Any, target: Any) -> None:
    """Fill an array of any shape with a million repeated numbers, to save time."""
    done = min(target.size, _DRAWN)
    numbers = np.random.default_rng(0).standard_normal(done, np.float32)
    backend.memory.upload(numbers, backend.memory.view(target, 0, (done,)))
    while done < target.size:
        more = min(done, target.size - done)
        backend.memory.copy(
            backend.memory.view(target, 0, (more,)), backend.memory.view(target, done, (more,))
        )
        done += more


def fill(net: Net, classes: int) -> None:
    """Fill weights (with He's variance), images and labels."""
    for blob in net.params.learnable:
        if blob.num_axes > 1:
            weights = blob.data.mutable_dev()
            spread(net.backend, weights)
            net.backend.vectors.scal((2 * blob.shape[0] / blob.count()) ** 0.5, weights)
    spread(net.backend, net.blobs["data"].data.mutable_dev())
    if "label" in net.blobs:
        labels = net.blobs["label"]
        labels.data.mutable_host()[...] = np.random.default_rng(1).integers(
            0, classes, labels.shape
        )


def copying(backend: Any, elements: int) -> Work:
    """A copy on the device, the reference of all bandwidths."""
    x, y = array(backend, elements), array(backend, elements)
    return lambda: backend.memory.copy(x, y)


def vector_work(backend: Any, name: str, elements: int) -> Work:
    """One op over about `elements` numbers: planes of 16 x 16, of 64 channels."""
    images = max(1, elements // (64 * 256))
    shape = (images, 64, 16, 16)
    x, y = array(backend, *shape), array(backend, *shape)
    if name == "relu forward":
        return lambda: backend.neurons.relu_forward(x, y, 0.0)
    if name == "relu backward":
        dx = array(backend, *shape)
        return lambda: backend.neurons.relu_backward(x, y, dx, 0.0)
    if name.startswith("max pool"):
        geom = PoolGeometry(*shape, (2, 2), (2, 2))
        small = (images, 64, 8, 8)
        top, mask = array(backend, *small), array(backend, *small, dtype=np.dtype(np.int32))
        backend.pool.max_forward(geom, x, top, mask)
        if name.endswith("forward"):
            return lambda: backend.pool.max_forward(geom, x, top, mask)
        return lambda: backend.pool.max_backward(geom, top, mask, y)
    if name == "bias forward":
        bias = array(backend, 64)
        return lambda: backend.products.bias_forward(Layout(images, 64, 256), bias, y)
    if name == "dropout forward":
        mask = array(backend, *shape, dtype=np.dtype(np.uint8))
        return lambda: backend.neurons.dropout_forward(x, y, mask, 0.5, Draw(1, 2, 3))
    if name == "sgd update":
        history = array(backend, *shape)
        return lambda: backend.vectors.sgd_update(x, y, history, 1e-9, 0.9, 5e-4)
    return lambda: backend.vectors.axpy(1e-9, x, y)


def convolution(backend: Any, layer: tuple[int, int, int], batch: int) -> dict[str, Work]:
    """The three passes of a layer, including the transform of its filters."""
    geom = gpu_cases.geometry(layer, batch)
    plan = backend.conv.plan(geom)
    x, dx = array(backend, *geom.in_shape), array(backend, *geom.in_shape)
    y, dy = array(backend, *geom.out_shape), array(backend, *geom.out_shape)
    w, dw = array(backend, *geom.weight_shape), array(backend, *geom.weight_shape)
    b = array(backend, geom.k)
    return {
        "forward": lambda: backend.conv.forward(plan, x, w, Epilogue(b), y, None),
        "backward data": lambda: backend.conv.backward_data(plan, dy, w, dx, None),
        "backward weight": lambda: backend.conv.backward_weight(plan, x, dy, dw),
    }


def training_step(backend: Any, net: str, batch: int) -> Work:
    """An iteration of the solver, including its update."""
    spec = specification(net)
    param = proto.SolverParameter(base_lr=1e-5, lr_policy="fixed", momentum=0.9, random_seed=1)
    param.weight_decay, param.max_iter = 5e-4, 1 << 30
    param.snapshot_after_train = False
    trained = fed(heads.train_val(spec), batch, spec.crop)
    for layer in trained.layer:
        for kind in ("convolution_param", "inner_product_param"):
            # `fill` is faster than drawing from Caffe's random stream.
            getattr(layer, kind).ClearField("weight_filler")
    param.net_param.CopyFrom(trained)
    solver = Solver(param, backend)
    fill(solver.net, spec.classes)
    return lambda: solver.step(1)


def inference_step(backend: Any, net: str, batch: int) -> Work:
    """A forward pass of the deployed net."""
    spec = specification(net)
    param = fed(heads.deploy(spec), batch, spec.crop)
    inferring = Net(param, proto.TEST, backend, RunContext(fill_weights=False))
    fill(inferring, spec.classes)
    return inferring.forward


STEPS: dict[str, Callable[[Any, str, int], Work]] = {
    "training": training_step,
    "inference": inference_step,
}
