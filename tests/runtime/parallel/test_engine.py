"""A solver with several replicas, as its user sees it."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import text
from prototxt_gen.errors import DataError, DeviceError, SnapshotError
from prototxt_gen.sidecar import read_sidecar
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.job.training import TrainJob, train
from runtime.net import Net
from runtime.parallel.engine import ReplicaEngine
from runtime.parallel.replica import Command, Replica
from runtime.parallel.shard_plan import PER_GPU, plan_shards
from runtime.parallel.start import options_for, start_threads
from runtime.solvers import build
from runtime.solvers.hooks import SolverHook
from runtime.solvers.options import SolverOptions
from runtime.solvers.snapshot import newest_snapshot
from runtime.solvers.solver import Solver


def open_cpu(param: Any, rank: int = 0) -> Any:
    return create_backend("cpu", threads=1)


class _Watch(SolverHook):
    """Stores the reported values."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.tests: list[float] = []

    def on_iteration(self, solver: Solver, progress: Any) -> None:
        self.losses.append(progress.loss)
        self.scores += [score.value for score in progress.scores]

    def on_test(self, solver: Solver, result: Any) -> None:
        self.tests += [score.value for score in result.scores]


def watched(case: Path, replicas: int, **others: Any) -> _Watch:
    watch = _Watch()
    train(TrainJob(str(case), replicas=replicas, **others), open_cpu, [watch], open_cpu)
    return watch


def test_what_is_reported_is_of_the_whole_batch(case: Path) -> None:
    one, four = watched(case, 1), watched(case, 4)
    assert one.losses == four.losses and len(one.losses) == 6
    assert one.scores == four.scores and len(one.scores) == 3
    assert one.tests == four.tests and len(one.tests) == 6
    sidecar = case.with_name("solver.verydeep.toml")
    sidecar.write_text(sidecar.read_text().replace("shards = 8", "shards = 1"))
    whole = watched(case, 1)
    np.testing.assert_allclose(whole.losses, one.losses, rtol=1e-4)
    np.testing.assert_allclose(whole.tests, one.tests, rtol=1e-4)


def test_the_first_loss_is_the_mean_over_all_samples(case: Path) -> None:
    """With zero weights the loss of every sample is ln(4), on every replica."""
    net = case.with_name("net.prototxt")
    net.write_text(net.read_text().replace('weight_filler { type: "xavier" }', ""))
    assert watched(case, 2).losses[0] == pytest.approx(math.log(4))


def test_effective_batch(case: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    watched(case, 4)
    line = "Effective batch 32: 16 images in 8 shard(s), iter_size 2, on 4 replicas (cpu)"
    assert line in caplog.messages
    watched(case, 3, batch_semantics=PER_GPU)
    line = "Effective batch 96: 48 images in 3 shard(s), iter_size 2, on 3 replicas (cpu)"
    assert line in caplog.messages


def test_each_gpus_batch_is_a_batch_so_many_times_as_large(case: Path) -> None:
    """BVLC Caffe on N devices equals one device with a batch N times as large."""
    text_of_net = case.with_name("net.prototxt").read_text()
    multiplied = watched(case, 2, batch_semantics=PER_GPU)
    first = text_of_net.replace("batch_size: 16", "batch_size: 32", 1)
    case.with_name("net.prototxt").write_text(first)
    sidecar = case.with_name("solver.verydeep.toml")
    sidecar.write_text(sidecar.read_text().replace("shards = 8", "shards = 2"))
    assert watched(case, 2).losses == multiplied.losses


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_gradient_in_the_snapshot_is_the_whole_one(case: Path, replicas: int) -> None:
    case.write_text(case.read_text() + "snapshot_diff: true\n")
    watched(case, replicas)
    written = case.parent / "run/exact_iter_6.caffemodel"
    once = written.read_bytes()
    watched(case, 8)
    assert written.read_bytes() == once


def test_a_failing_record_ends_the_run_and_saves_it(
    case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Replica.compute

    def compute(self: Replica, first_pass: int) -> Any:
        if self.rank == 1 and first_pass >= 4 * 16:
            raise DataError("record 00000031: cannot be decoded")
        return whole(self, first_pass)

    monkeypatch.setattr(Replica, "compute", compute)
    with pytest.raises(DataError, match="record 00000031"):
        watched(case, 4)
    saved = newest_snapshot(str(case.parent / "run/exact"))
    assert saved is not None and saved.name == "exact_iter_4.solverstate"


def test_history_goes_out_and_comes_back(case: Path) -> None:
    param = text.read_solver(case)
    options = SolverOptions(sidecar=read_sidecar(case))
    plan = plan_shards(param, options, 4)
    solver = Solver(
        param,
        open_cpu(param),
        options_for(options, plan),
        build_engine=lambda setup: start_threads(setup, plan, lambda rank: open_cpu(param, rank)),
    )
    try:
        rng = np.random.default_rng(2)
        given = [rng.random(blob.shape, np.float32) for blob in solver.engine.history]
        solver.engine.restore_history(given, "here")
        for blob, values in zip(solver.engine.history, given, strict=True):
            np.testing.assert_array_equal(blob.data.host(), values)
        for wrong in (given[1:], [values.T.copy() for values in given]):
            with pytest.raises(SnapshotError, match="here: "):
                solver.engine.restore_history(wrong, "here")
        for blob, values in zip(solver.engine.history, given, strict=True):
            np.testing.assert_array_equal(blob.data.host(), values)
        assert isinstance(solver.engine, ReplicaEngine)
        solver.engine.pass_number = 5
        loss = solver.engine.compute_loss()
        assert solver.engine.pass_number == 13 and 0 < loss < 10
    finally:
        solver.close()
        solver.close()


@pytest.mark.parametrize("failing", [1, 3])
def test_a_solver_whose_replica_cannot_be_built_closes_what_was_built(
    case: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, closed = [], []

    class Counted(Net):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            built.append(id(self))

        def close(self) -> None:
            closed.append(id(self))
            super().close()

    def open_replica(param: Any, rank: int) -> Any:
        if rank == failing:
            raise DeviceError("no such device")
        return open_cpu(param)

    monkeypatch.setattr(build, "Net", Counted)
    with pytest.raises(DeviceError, match="no such device"):
        train(TrainJob(str(case), replicas=4), open_cpu, [], open_replica)
    assert len(built) == 2 * failing and set(closed) == set(built)


def test_every_command_is_executed() -> None:
    called = []

    class Noted(Replica):
        def __init__(self) -> None:
            pass

        def __getattribute__(self, name: str) -> Any:
            if name == "execute":
                return super().__getattribute__(name)
            return lambda *args: called.append(name)

    for command in Command:
        Noted().execute(command, ())
    assert called == [command.name.lower() for command in Command]


def test_replicas_need_devices(case: Path) -> None:
    with pytest.raises(DeviceError, match="replica 1: it has no device; expected one"):
        train(TrainJob(str(case), replicas=2), open_cpu)


def test_from_the_command_line(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--solver", str(case), "-replicas=2", "-threads", "2"]
    assert main([*command, "--batch-semantics", "per-gpu"]) == 0
    shown = capsys.readouterr()
    assert "iterations: 6" in shown.out
    assert "Effective batch 64: 32 images in 2 shard(s), iter_size 2, on 2 replicas" in shown.err


def test_a_test_net_with_weights_of_its_own(case: Path) -> None:
    """Its extra layer has random weights, which only the first replica has."""
    net = case.with_name("net.prototxt")
    extra = (
        'layer { name: "own" type: "InnerProduct" bottom: "fc5" top: "own" include { phase: TEST }'
        ' inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }'
        'layer { name: "mean" type: "Reduction" bottom: "own" top: "mean" include { phase: TEST }'
        " reduction_param { operation: MEAN } }"
    )
    net.write_text(net.read_text() + extra)
    one, four = watched(case, 1), watched(case, 4)
    assert len(one.tests) == 9 and one.tests == four.tests
