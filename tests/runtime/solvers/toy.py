"""Small nets for solver tests; the data is a function of the sample number, without files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.net import Net
from runtime.solvers.engine import BuildEngine
from runtime.solvers.hooks import SolverHook
from runtime.solvers.local_engine import LocalEngine
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver

LEAST_SQUARES = """
name: "toy"
layer {{ name: "data" type: "Input" top: "data" top: "target"
  input_param {{ shape {{ dim: {batch} dim: 3 }} shape {{ dim: {batch} dim: 2 }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: 2 weight_filler {{ type: "gaussian" std: 1 }}
    bias_filler {{ type: "constant" value: 0.5 }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }}
"""

CLASSIFIER = """
name: "classifier"
layer {{ name: "data" type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: {batch} dim: 6 }} shape {{ dim: {batch} }} }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param {{ num_output: 8 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include {{ phase: TEST }} }}
"""

DEFAULTS = "base_lr: 0.1 lr_policy: 'fixed' random_seed: 5"


def samples(first: int, count: int, width: int, seed: int) -> npt.NDArray[np.float64]:
    """Rows first .. first+count-1 of a table of random numbers; independent of the batch size."""
    rows = [np.random.default_rng((seed, first + n)).normal(size=width) for n in range(count)]
    return np.array(rows)


def least_squares_batch(first: int, count: int) -> tuple[Any, Any]:
    """Inputs (N,3) and targets (N,2)."""
    return samples(first, count, 3, 1), samples(first, count, 2, 2)


def labelled_batch(first: int, count: int) -> tuple[Any, Any]:
    """Inputs (N,6), and labels (N,): the largest of three fixed linear functions."""
    x = samples(first, count, 6, 3)
    return x, (x @ samples(0, 3, 6, 4).T).argmax(axis=1)


def feed(net: Net) -> None:
    """Fill the net's inputs before every pass, by its pass number."""
    make = labelled_batch if "label" in net.inputs else least_squares_batch
    blobs = [net.blobs[name] for name in net.inputs]
    count = blobs[0].shape[0]

    def fill(layer: int) -> None:
        if layer == 0:
            for blob, values in zip(blobs, make(net.context.pass_number * count, count)):
                blob.data.mutable_host()[...] = values

    net.before_forward.append(fill)


def solver_param(fields: str, net: str = LEAST_SQUARES, batch: int = 4) -> Any:
    """A SolverParameter with the net in it; `fields` is prototxt."""
    param = text.parse(DEFAULTS, proto.SolverParameter)
    param.MergeFrom(text.parse(fields, proto.SolverParameter))
    param.net_param.CopyFrom(text.parse(net.format(batch=batch), proto.NetParameter))
    return param


def make_solver(
    fields: str = "",
    net: str = LEAST_SQUARES,
    batch: int = 4,
    dtype: str = "float32",
    options: SolverOptions | None = None,
    hooks: tuple[SolverHook, ...] = (),
    build_engine: BuildEngine = LocalEngine,
) -> Solver:
    """A solver of a small net on the CPU, with data."""
    if "snapshot_after_train" not in fields and "snapshot_prefix" not in fields:
        fields += " snapshot_after_train: false"
    backend = create_backend("cpu", dtype=np.dtype(dtype))
    param = solver_param(fields, net, batch)
    solver = Solver(param, backend, options, hooks, build_engine)
    for built in (solver.net, *solver.test_nets):
        feed(built)
    return solver


def weights(solver: Solver) -> list[npt.NDArray[Any]]:
    """Copies of all weight blobs."""
    return [blob.data.host().copy() for blob in solver.net.params.learnable]


def history(solver: Solver) -> list[npt.NDArray[Any]]:
    """Copies of all history blobs."""
    return [blob.data.host().copy() for blob in solver.engine.history]


def same(a: list[npt.NDArray[Any]], b: list[npt.NDArray[Any]]) -> bool:
    """Whether two lists of arrays have the same bytes."""
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b))


def prefix(folder: Path) -> str:
    return f"snapshot_prefix: '{folder}/toy'"
