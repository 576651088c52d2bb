"""Gradients of fully-connected layers that are computed from factors."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.sidecar import read_sidecar
from runtime.backend.cpu.backend import CpuBackend
from runtime.job import exactness
from runtime.net import Net
from runtime.parallel import replica
from runtime.parallel.factors import GRID, Factors, choose_factors
from runtime.parallel.shard_plan import ShardPlan, plan_shards
from runtime.parallel.start import options_for, start_threads
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver
from runtime.weights.caffemodel import read_caffemodel
from tests.runtime.parallel.conftest import Trained
from tests.runtime.small_net import build

ROWS, COLS, BATCH = 300, 230, 2
NET = """
name: "wide"
layer {{ name: "data" type: "Input" top: "data"
  input_param {{ shape {{ dim: {batch} dim: 230 }} }} }}
layer {{ name: "wide" type: "InnerProduct" bottom: "data" top: "wide" {param}
  inner_product_param {{ num_output: 300 transpose: {transpose} {filler} }} }}
layer {{ name: "narrow" type: "InnerProduct" bottom: "wide" top: "narrow" {shared}
  inner_product_param {{ num_output: 230 {filler} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "narrow" bottom: "data" top: "loss" {loss} }}
"""
FILLER = 'weight_filler { type: "xavier" } bias_term: false'


def wide(**words: Any) -> AbstractContextManager[Net]:
    given = {"batch": BATCH, "param": "", "shared": "", "transpose": "false", "loss": ""} | words
    return build(NET.format(filler=FILLER, **given), proto.TRAIN, seed=3)


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_the_mean_over_the_shards_of_left_times_right(replicas: int) -> None:
    """The owner of a row computes the same bits as one replica does."""
    plan = ShardPlan(8 * BATCH, 8, replicas, iter_size=2)
    lefts, rights = random(0, 16, BATCH, ROWS), random(1, 16, BATCH, COLS)
    expected = np.einsum("pbr,pbc->rc", lefts.astype(float), rights.astype(float)) / 8
    with wide() as net:
        layer = net.layers[net.layer_names.index("wide")]
        alone = Factors(layer, dataclasses.replace(plan, replicas=1), 0)
        for left, right in zip(lefts, rights, strict=True):
            alone.keep(left, right)
        alone.multiply(None, 0, ROWS * COLS)
        whole = layer.blobs[0].diff.host().copy()
        np.testing.assert_allclose(whole, expected, atol=1e-5)
        several = [Factors(layer, plan, rank) for rank in range(replicas)]
        each = 16 // replicas
        for rank, one in enumerate(several):
            one.begin()
            for number in range(rank * each, (rank + 1) * each):
                one.keep(lefts[number], rights[number])
        messages = [one.message() for one in several]
        assert [[array.size for array in message] for message in messages] == several[0].sizes()
        bounds = [whole.size * rank // replicas for rank in range(replicas + 1)]
        for rank, one in enumerate(several):
            low, high = bounds[rank], bounds[rank + 1]
            layer.blobs[0].diff.mutable_host()[...] = np.nan
            one.multiply(messages if replicas > 1 else None, low, high)
            found = layer.blobs[0].diff.host().reshape(-1)
            np.testing.assert_array_equal(found[low:high], whole.reshape(-1)[low:high])
            assert np.isnan(found).sum() >= whole.size * (1 - 1 / replicas) - 2 * GRID * COLS


def test_rows_are_computed_in_blocks_of_one_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounding of BLAS may depend on the number of rows, so it is always the same."""
    blocks: list[tuple[int, int]] = []
    with wide() as net:
        layer = net.layers[net.layer_names.index("wide")]
        gemm, out = net.backend.products.gemm, layer.blobs[0].diff.mutable_host()

        def noted(*args: Any) -> None:
            rows = args[-1]
            offset = rows.ctypes.data - out.ctypes.data
            blocks.append((offset // out.strides[0], len(rows)))
            gemm(*args)

        one = Factors(layer, ShardPlan(2 * BATCH, 2, 1), 0)
        monkeypatch.setattr(net.backend.products, "gemm", noted)
        monkeypatch.setattr(net.backend, "rows_independent", True)
        one.multiply(None, 150 * COLS + 7, 257 * COLS)
        assert blocks == [(150, 107)]
        blocks.clear()
        monkeypatch.setattr(net.backend, "rows_independent", False)
        one.multiply(None, 0, ROWS * COLS)
        whole = blocks.copy()
        assert whole == [(0, 128), (128, 128), (256, 44)]
        blocks.clear()
        one.multiply(None, 150 * COLS + 7, 257 * COLS)
        assert blocks == whole[1:]
        one.multiply(None, 5, 5)
        assert blocks == whole[1:]


def chosen(net: Net, plan: ShardPlan) -> list[str]:
    return [net.params.names[index] for index in choose_factors(net, plan, 0)]


def test_large_layers_of_small_batches_are_chosen() -> None:
    plan = ShardPlan(16, 8, 1)
    with wide() as net:
        assert chosen(net, plan) == ["wide[0]", "narrow[0]"]
        assert chosen(net, dataclasses.replace(plan, shards=1)) == []
    with wide(batch=9) as net:
        assert chosen(net, plan) == []
    with wide(transpose="true") as net:
        assert chosen(net, plan) == ["wide[0]", "narrow[0]"]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ({"param": "param { lr_mult: 0 }"}, ["narrow[0]"]),
        ({"loss": "loss_weight: 0"}, []),
    ],
)
def test_what_gets_no_gradient_is_not(words: dict[str, str], left: list[str]) -> None:
    with wide(**words) as net:
        assert chosen(net, ShardPlan(16, 8, 1)) == left


def test_shared_weights_are_not() -> None:
    shared = 'param { name: "w" share_mode: PERMISSIVE }'
    with wide(param=shared, shared=shared) as net:
        assert chosen(net, ShardPlan(16, 8, 1)) == []


def test_devices_with_memory_of_their_own_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with wide() as net:
        monkeypatch.setattr(type(net.backend), "shares_host_memory", False)
        assert chosen(net, ShardPlan(16, 8, 1)) == []


@pytest.mark.parametrize("transpose", ["true", "false"])
def test_training_learns_what_it_learns_by_adding(
    case: Path, fresh: Trained, monkeypatch: pytest.MonkeyPatch, transpose: str
) -> None:
    net = case.with_name("net.prototxt")
    wide_layer = f"num_output: 600 transpose: {transpose}"
    net.write_text(net.read_text().replace("num_output: 600", wide_layer))
    used: list[int] = []
    multiply = Factors.multiply

    def noted(self: Factors, *args: Any) -> None:
        used.append(self.rows * self.cols)
        multiply(self, *args)

    monkeypatch.setattr(Factors, "multiply", noted)
    sums = {fresh(case, 1), fresh(case, 4)}
    assert len(sums) == 1 and set(used) == {600 * 150}
    model = case.parent / "run" / "exact_iter_3.caffemodel"
    found = [blob.array() for layer in read_caffemodel(model) for blob in layer.blobs]
    monkeypatch.setattr(replica, "choose_factors", lambda *args: {})
    fresh(case, 1)
    added = [blob.array() for layer in read_caffemodel(model) for blob in layer.blobs]
    for one, other in zip(found, added, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)


def test_a_net_that_is_run_by_hand_multiplies_out(case: Path) -> None:
    """A user may run the net between two steps of the solver."""
    case.write_text(case.read_text().replace("iter_size: 2", "iter_size: 1"))
    param, options = text.read_solver(case), SolverOptions(sidecar=read_sidecar(case))
    plan = plan_shards(param, options, 2)
    solver = Solver(
        param,
        CpuBackend(threads=1),
        options_for(options, plan),
        build_engine=lambda setup: start_threads(setup, plan, lambda rank: CpuBackend(threads=1)),
    )
    try:
        solver.step(1)
        solver.net.forward()
        solver.net.clear_param_diffs()
        solver.net.backward()
        layer = solver.net.layer_by_name("wide")
        assert layer is not None
        place = solver.net.layers.index(layer)
        x = solver.net.bottoms[place][0].data.host().reshape(2, -1)
        dy = solver.net.tops[place][0].diff.host()
        assert np.abs(dy).max() > 0
        np.testing.assert_allclose(layer.blobs[0].diff.host(), dy.T @ x, rtol=1e-4, atol=1e-7)
    finally:
        solver.close()


def test_numpys_backend_keeps_the_promise_as_well(
    case: Path, fresh: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It uses BLAS, whose bits may depend on the number of rows."""
    opened: list[CpuBackend] = []

    def open_numpy(*names: Any, **options: Any) -> CpuBackend:
        opened.append(CpuBackend(native=False, **options))
        return opened[-1]

    monkeypatch.setattr(exactness, "create_backend", open_numpy)
    assert len({fresh(case, replicas) for replicas in (1, 2, 8)}) == 1
    assert len(opened) == 11
