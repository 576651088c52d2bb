"""Solvers: reading, training for a few iterations, saving and resuming."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from prototxt_gen import proto, text
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver
from tests.mutants.case import Case, Format
from tests.mutants.message_damage import message_damage
from tests.mutants.read_nets import backend, is_small

_SOLVER = """net: "train.prototxt" base_lr: 0.01 lr_policy: "step" gamma: 0.1 stepsize: 1
power: 0.75 momentum: 0.9 weight_decay: 0.0005 regularization_type: "L2" max_iter: 2 display: 1
average_loss: 1 test_iter: 1 test_interval: 1 test_initialization: true snapshot: 1
snapshot_prefix: "s"
snapshot_format: BINARYPROTO solver_mode: CPU random_seed: 1 iter_size: 1 type: "SGD"
"""
_ADAM = """train_net: "train.prototxt" test_net: "train.prototxt" test_net: "train.prototxt"
test_iter: 1 test_iter: 2 test_interval: 2 test_state { phase: TEST stage: "x" } test_state { }
base_lr: 0.1 lr_policy: "multistep" gamma: 0.5 stepvalue: 1 stepvalue: 2 max_iter: 3 type: "Adam"
momentum: 0.9 momentum2: 0.999 delta: 1e-8 clip_gradients: 1 debug_info: true snapshot_diff: true
snapshot: 2 snapshot_prefix: "folder/a" snapshot_format: HDF5 solver_mode: CPU iter_size: 2
"""
_OLD_SOLVER = """net_param { name: "toy" layer { name: "d" type: "DummyData" top: "x" top: "y"
  dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" param { lr_mult: 1 }
    inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" } }
base_lr: 0.1 lr_policy: "poly" power: 1 max_iter: 2 solver_type: NESTEROV momentum: 0.5
regularization_type: "L1" weight_decay: 0.1 snapshot_after_train: false rms_decay: 0.9
"""
_TRAIN = """name: "toy" layer { name: "d" type: "DummyData" top: "x" top: "label" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 } data_filler { type: "gaussian" std: 1 }
  data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" param { lr_mult: 1 }
  param { lr_mult: 2 } inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""
_SOLVER_NAMES = (
    "SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam", "fixed", "step", "exp", "inv",
    "multistep", "poly", "sigmoid", "plateau", "L1", "L2", "train.prototxt", "folder/b",
)  # fmt: skip
_SOLVER_WORDS = (
    b'"SGD"', b'"Adam"', b'"poly"', b'"L1"', b"true", b"false", b"CPU", b"GPU", b"HDF5",
    b"rms_decay: 0.5", b"stepvalue: 0", b"stepvalue: -1", b"weights: 'w.caffemodel'",
    b"iter_size: 0", b"train_state { level: 1 }", b"layer_wise_reduce: false",
    b"test_compute_loss: true", b"device_id: 3", b"solver_type: ADAM", b"net: 'train.prototxt'",
    b"max_iter: 0", b"test_interval: 0", b"display: 0", b"snapshot: -1", b"average_loss: 0",
    b"momentum2: 1", b"delta: 0", b"clip_gradients: -1",
)  # fmt: skip
_MOST_ITERATIONS = 3


def _read_solver(data: bytes) -> None:
    path = Path("solver.prototxt")
    path.write_bytes(data)
    param = text.read_solver(path)
    _spare(param)
    with_seed = SolverOptions(seed=1)
    solver = Solver(param, backend(), with_seed)
    try:
        if not all(is_small(net) for net in (solver.net, *solver.test_nets)):
            return
        solver.solve()
        if solver.param.snapshot_prefix:
            files = solver.snapshot()
            solver.restore(files[1])
            solver.step(1)
    finally:
        solver.close()


def _spare(param: Any) -> None:
    """Reduce numbers of iterations that would take long; other values are left to the solver."""
    for key, most in (("max_iter", _MOST_ITERATIONS), ("iter_size", 2), ("average_loss", 100)):
        if getattr(param, key) > most:
            setattr(param, key, most)
    for place, count in enumerate(param.test_iter):
        param.test_iter[place] = min(count, 2)


def prepare_solvers() -> list[Case]:
    """Three solvers: of the current form, with test nets and HDF5, with an embedded net."""
    Path("train.prototxt").write_text(_TRAIN)
    samples = tuple(solver.encode() for solver in (_SOLVER, _ADAM, _OLD_SOLVER))
    damage = message_damage(proto.SolverParameter, _SOLVER_NAMES, _SOLVER_WORDS)
    return [Case("solver", samples, damage, _read_solver)]


FORMATS = (Format("solver", prepare_solvers, honest_memory=True),)


@functools.cache
def _toy_param() -> Any:
    param = text.parse(_SOLVER, proto.SolverParameter)
    param.ClearField("net")
    param.train_net_param.CopyFrom(text.parse(_TRAIN, proto.NetParameter))
    param.test_net_param.add().CopyFrom(param.train_net_param)
    return param


def toy_solver(options: SolverOptions) -> Solver:
    """A solver of a toy net, for files of its state."""
    return Solver(_toy_param(), backend(), options)
