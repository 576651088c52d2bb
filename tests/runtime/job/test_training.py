"""The training job from its files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen.errors import ProtoError, SnapshotError
from runtime.backend.base import Backend
from runtime.backend.registry import create_backend
from runtime.job.training import AUTO, TrainJob, prepare, train
from runtime.solvers.hooks import SolverHook
from runtime.solvers.signals import Action
from runtime.solvers.solver import Solver
from tests.runtime.solvers.toy import CLASSIFIER, feed

SOLVER = """
net: "{folder}/net.prototxt"
base_lr: 0.1
lr_policy: "fixed"
momentum: 0.9
max_iter: {max_iter}
display: 2
test_iter: 2
test_interval: 4
snapshot: 4
snapshot_prefix: "{folder}/run/toy"
solver_mode: CPU
"""


class _Feed(SolverHook):
    """Feeds the nets, and stops the run before an iteration where asked to."""

    def __init__(self, stop_at: int = -1) -> None:
        self.stop_at = stop_at

    def on_solve(self, solver: Solver) -> None:
        for net in (solver.net, *solver.test_nets):
            feed(net)
        if self.stop_at >= 0:
            solver.requested_action = lambda: (
                Action.STOP if solver.iter == self.stop_at else Action.NONE
            )


def _backend(param: Any) -> Backend:
    assert param.solver_mode == param.CPU
    return create_backend("cpu")


@pytest.fixture
def solver(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "net.prototxt").write_text(CLASSIFIER.format(batch=64))
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER.format(folder=tmp_path, max_iter=10))
    yield path


def _names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def test_from_start_to_end(solver: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    result = train(TrainJob(str(solver)), _backend, [_Feed()])
    assert (result.iterations, result.stopped) == (10, False)
    assert _names(result.files) == [
        "toy_iter_10.caffemodel",
        "toy_iter_10.solverstate",
        "toy_iter_10.state.json",
    ]
    assert result.model == result.files[0] and result.solverstate == result.files[1]
    assert all(path.exists() for path in result.files)
    assert set(result.test) == {"accuracy", "loss"}
    assert result.best is not None and result.best["name"] == "accuracy"
    assert result.log_json == solver.parent / "run" / "toy.log.jsonl"
    assert '"event": "end"' in result.log_json.read_text()
    assert json.loads(result.to_json())["iterations"] == 10
    assert "Effective batch 64: 64 images in 1 shard(s), iter_size 1, on cpu" in caplog.text
    assert caplog.messages[-1] == "Optimization Done."


def test_stopped_and_resumed_is_straight_bit_for_bit(solver: Path, tmp_path: Path) -> None:
    solver.write_text(solver.read_text() + "random_seed: 3\n")
    straight = train(TrainJob(str(solver)), _backend, [_Feed()])
    bytes_of = [path.read_bytes() for path in straight.files[:2]]
    for path in (tmp_path / "run").glob("toy_iter*"):
        path.unlink()
    for stop in (3, 5, 9):
        train(TrainJob(str(solver), AUTO), _backend, [_Feed(stop)])
    result = train(TrainJob(str(solver), AUTO), _backend, [_Feed()])
    assert [path.read_bytes() for path in result.files[:2]] == bytes_of


def test_a_drawn_seed_is_that_of_the_resumed_run(solver: Path) -> None:
    seeds = []

    class Look(_Feed):
        def on_solve(self, solver: Solver) -> None:
            super().on_solve(solver)
            seeds.append((solver.seed, solver.net.context.seed))

    for stop in (2, 3, 4):
        train(TrainJob(str(solver), AUTO), _backend, [Look(stop)])
    assert len(set(seeds)) == 1 and seeds[0][0] == seeds[0][1]


def test_a_finished_run_gives_its_files_again(solver: Path) -> None:
    solver.write_text(SOLVER.format(folder=solver.parent, max_iter=8))
    first = train(TrainJob(str(solver)), _backend, [_Feed()])
    again = train(TrainJob(str(solver), AUTO), _backend, [_Feed()])
    assert again.files == first.files and again.iterations == 8
    assert again.test.keys() == first.test.keys()


def test_auto_without_a_snapshot_starts_at_the_beginning(
    solver: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    assert prepare(TrainJob(str(solver), AUTO))[1] is None
    assert "No complete snapshot of" in caplog.text and "starting from the beginning" in caplog.text


def test_weights_replace_the_solvers_and_a_snapshot_needs_none(
    solver: Path, tmp_path: Path
) -> None:
    solver.write_text(solver.read_text() + 'weights: "own.caffemodel"\n')
    assert list(prepare(TrainJob(str(solver)))[0].weights) == ["own.caffemodel"]
    param, _ = prepare(TrainJob(str(solver), weights="a,b", level=2, stages=["x", "y"]))
    assert list(param.weights) == ["a,b"]
    assert param.train_state.level == 2 and list(param.train_state.stage) == ["x", "y"]
    state = tmp_path / "a_iter_1.solverstate"
    state.write_bytes(b"")
    assert list(prepare(TrainJob(str(solver), state))[0].weights) == []


def test_errors(solver: Path, tmp_path: Path) -> None:
    with pytest.raises(ProtoError, match="Give a snapshot to resume training or weights to finet"):
        prepare(TrainJob(str(solver), snapshot="a", weights="b"))
    with pytest.raises(SnapshotError, match=r"the snapshot is missing; expected a \.solverstate"):
        prepare(TrainJob(str(solver), snapshot=tmp_path / "none.solverstate"))
    solver.write_text(solver.read_text() + "snapshot_after_train: false\n")
    result = train(TrainJob(str(solver)), _backend, [_Feed(2)])
    with pytest.raises(SnapshotError, match="the run took no snapshot"):
        _ = result.model
