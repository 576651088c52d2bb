"""Passes from many threads and in many forked children: no byte differs from a single thread's."""

from __future__ import annotations

import os

import pytest

from prototxt_gen import proto
from runtime.backend.base import Backend
from runtime.backend.cpu import recording
from runtime.backend.cpu.backend import CpuBackend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from tests.runtime.process.children import Child
from tests.runtime.process.concurrent_nets import FILLER, run_threads
from tests.runtime.small_nets import conv, input_layer, layer, net_param

pytestmark = pytest.mark.slow
PASSES, THREADS, FORKS = 200_000, 4, 200
LAYERS = (
    input_layer(1, 3, 12, 12)
    + conv("conv1", "data", 16, 3, f"pad: 1 {FILLER}")
    + layer("LRN", "norm1", "conv1")
    + conv("conv2", "norm1", 16, 3, f"pad: 1 {FILLER}")
    + layer("Pooling", "pool", "conv2", "pooling_param { kernel_size: 2 stride: 2 }")
    + layer("InnerProduct", "fc", "pool", f"inner_product_param {{ num_output: 10 {FILLER} }}")
    + layer("Softmax", "prob", "fc")
)


def net_of(backend: Backend, seed: int) -> Net:
    context = RunContext(seed=seed, rng=CaffeRandom(seed))
    net = Net(net_param(LAYERS), proto.TEST, backend, context)
    net.blobs["data"].data.mutable_host()[...] = seed / 7
    return net


def output(net: Net) -> bytes:
    net.forward()
    return net.blobs["prob"].data.host().tobytes()


@pytest.mark.parametrize(
    ("turn_us", "count"),
    [(recording._TURN_US, PASSES), (0, PASSES // 8)],
    ids=["at once", "in turns"],
)
def test_passes_from_threads(monkeypatch: pytest.MonkeyPatch, turn_us: int, count: int) -> None:
    monkeypatch.setattr(recording, "_TURN_US", turn_us)
    backend = CpuBackend(threads=2)
    nets = [net_of(backend, seed) for seed in range(THREADS)]
    alone = [output(net) for net in nets]
    assert len(set(alone)) == THREADS

    def passes(index: int) -> int:
        net, expected = nets[index], alone[index]
        return sum(output(net) != expected for _ in range(count // THREADS))

    assert run_threads([lambda i=i: passes(i) for i in range(THREADS)]) == [0] * THREADS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forks_between_passes() -> None:
    backend = CpuBackend(threads=2)
    nets = [net_of(backend, seed) for seed in range(2)]
    alone = [output(net) for net in nets]

    def passes() -> bytes:
        return b"".join(output(net) for net in nets for _ in range(20))

    expected = b"".join(out for out in alone for _ in range(20))
    for _ in range(FORKS // 2):
        children = [Child(passes) for _ in range(2)]
        assert passes() == expected
        assert [child.result() for child in children] == [expected] * 2
