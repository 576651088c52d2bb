"""Nets and solvers in several threads compute the same bytes as alone."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime.pycaffe as caffe
from runtime.backend.base import Backend
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.registry import create_backend
from tests.runtime.process.concurrent_nets import LAYERS, outputs, run_threads, small_net

BACKENDS = [
    "compiled",
    "numpy",
    "numpy64",
    pytest.param("emu", marks=pytest.mark.skipif(not shutil.which("g++"), reason="no g++")),
]


def backend_of(kind: str, threads: int = 2) -> Backend:
    if kind == "emu":
        return create_backend("emu")
    if kind == "numpy64":
        return CpuBackend(np.float64, threads=threads)
    return CpuBackend(threads=threads, native=None if kind == "compiled" else False)


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("callers", [2, 5])
def test_nets_on_one_backend(kind: str, callers: int) -> None:
    backend = backend_of(kind)
    nets = [small_net(backend, seed) for seed in range(callers)]
    alone = [outputs(net) for net in nets]

    def passes(index: int) -> int:
        return sum(outputs(nets[index]) != alone[index] for _ in range(8))

    assert run_threads([lambda i=i: passes(i) for i in range(callers)]) == [0] * callers


def test_more_callers_than_the_team_has_jobs() -> None:
    """A caller that finds no free job computes alone; see native/team.cpp."""
    backend = backend_of("compiled", threads=3)
    net = small_net(backend, 0)
    alone = outputs(net)
    nets = [small_net(backend, 0) for _ in range(20)]
    results = run_threads([lambda n=n: [outputs(n) for _ in range(3)] for n in nets])
    assert results == [[alone] * 3] * 20


@pytest.mark.parametrize("kind", BACKENDS)
def test_one_net_called_by_several_threads(kind: str) -> None:
    net = small_net(backend_of(kind), 3)
    alone = outputs(net)

    def passes() -> list[bytes]:
        results = []
        for _ in range(8):
            with net.exclusive():
                results.append(outputs(net))
        return results

    assert run_threads([passes] * 4) == [[alone] * 8] * 4


def test_nets_are_built_while_others_run() -> None:
    backend = backend_of("compiled")
    net = small_net(backend, 1)
    alone, stop = outputs(net), threading.Event()
    wrong: list[bytes] = []

    def build() -> None:
        try:
            for seed in range(6):
                fresh = small_net(backend, seed)
                if outputs(fresh) != outputs(small_net(backend_of("compiled"), seed)):
                    wrong.append(b"built")
        finally:
            stop.set()

    def run() -> None:
        while not stop.is_set():
            if outputs(net) != alone:
                wrong.append(b"run")

    assert run_threads([build, run]) == [None, None]
    assert wrong == []


def pycaffe_net(folder: Path) -> caffe.Net:
    path = folder / "net.prototxt"
    path.write_text(LAYERS)
    caffe.set_random_seed(11)
    return caffe.Net(str(path), caffe.TEST)


def test_pycaffe_calls_are_whole(tmp_path: Path) -> None:
    """Each thread gets the outputs of the input that it gave, in arrays of its own."""
    net = pycaffe_net(tmp_path)
    images = np.random.default_rng(0).standard_normal((4, 2, 3, 32, 32)).astype(np.float32)
    alone = [net.forward(data=image)["prob"].copy() for image in images]

    def calls(index: int) -> int:
        wrong = 0
        for _ in range(10):
            first = net.forward(data=images[index])
            many = net.forward_all(data=images[index])
            for result in (first, many):
                wrong += not np.array_equal(result["prob"], alone[index])
        return wrong

    assert run_threads([lambda i=i: calls(i) for i in range(4)]) == [0] * 4


def test_pycaffe_returns_the_blobs_own_arrays_to_the_thread_that_made_the_net(
    tmp_path: Path,
) -> None:
    net = pycaffe_net(tmp_path)
    assert np.shares_memory(net.forward()["prob"], net.blobs["prob"].data)
    (other,) = run_threads([lambda: net.forward()["prob"]])
    assert not np.shares_memory(other, net.blobs["prob"].data)
    assert not np.shares_memory(net.forward()["prob"], net.blobs["prob"].data)


SOLVER = """
base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.001 random_seed: %d
clip_gradients: 1 solver_mode: CPU snapshot_after_train: false
net_param {
  layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param {
    shape { dim: 4 dim: 3 dim: 16 dim: 16 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
  layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param {
    num_output: 16 kernel_size: 3 weight_filler { type: "xavier" } } }
  layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
  layer { name: "drop" type: "Dropout" bottom: "c" top: "c" }
  layer { name: "fc" type: "InnerProduct" bottom: "c" top: "fc" inner_product_param {
    num_output: 5 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
}
"""


def weights_of(net: Any) -> bytes:
    return b"".join(blob.data.tobytes() for blobs in net.params.values() for blob in blobs)


def solver_file(folder: Path, seed: int) -> str:
    path = folder / f"solver{seed}.prototxt"
    path.write_text(SOLVER % seed)
    return str(path)


def test_solvers_in_threads(tmp_path: Path) -> None:
    files = [solver_file(tmp_path, seed) for seed in (1, 2)]

    def train(path: str) -> bytes:
        solver = caffe.get_solver(path)
        solver.step(12)
        return weights_of(solver.net)

    alone = [train(path) for path in files]
    assert run_threads([lambda p=p: train(p) for p in files]) == alone


def test_solvers_made_in_one_thread_and_run_in_others(tmp_path: Path) -> None:
    """Each continues with the random numbers of its own seed."""
    files = [solver_file(tmp_path, seed) for seed in (3, 4)]

    def train(solver: caffe.SGDSolver) -> bytes:
        solver.step(12)
        return weights_of(solver.net)

    alone = [train(caffe.get_solver(path)) for path in files]
    solvers = [caffe.get_solver(path) for path in files]
    assert run_threads([lambda s=s: train(s) for s in solvers]) == alone


def test_one_solver_stepped_by_two_threads(tmp_path: Path) -> None:
    path = solver_file(tmp_path, 5)
    alone, shared = caffe.get_solver(path), caffe.get_solver(path)
    alone.step(10)
    assert run_threads([lambda: shared.step(5)] * 2) == [None, None]
    assert shared.iter == 10
    assert weights_of(shared.net) == weights_of(alone.net)
