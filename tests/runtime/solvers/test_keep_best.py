"""The best test of a run, early stops, and the average of the weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import SnapshotError, UsageError
from runtime.net import Net
from runtime.solvers import hooks as events
from runtime.solvers.hooks import Score, SolverHook
from runtime.solvers.keep_best import BestTest, KeepBest, read_best
from runtime.solvers.solver import Solver
from runtime.solvers.weight_average import WeightAverage
from runtime.weights.net_weights import copy_trained_layers
from tests.runtime.solvers.toy import CLASSIFIER, make_solver


def run_of(prefix: Path, iteration: int = 0) -> Any:
    """The part of a solver that KeepBest reads."""
    net = SimpleNamespace(outputs=["accuracy", "loss"])
    param = SimpleNamespace(snapshot_prefix=str(prefix))
    return SimpleNamespace(net=None, test_nets=[net], param=param, iter=iteration)


def observe(
    hook: KeepBest, solver: Any, values: list[float], first: int = 0, weight: float = 0
) -> None:
    for place, value in enumerate(values, first):
        score = Score(hook.metric, value, weight)
        hook.on_test(solver, events.TestResult(10 * place, 0, (score,)))


@pytest.mark.parametrize(
    ("values", "weight", "best"),
    [
        ([0.1, 0.5, 0.4, 0.5], 0.0, BestTest("accuracy", 0.5, 10, 2)),
        ([3.0, 1.0, 2.0], 1.0, BestTest("accuracy", 1.0, 10, 1)),
        ([float("nan"), 0.2, float("inf")], 0.0, BestTest("accuracy", 0.2, 10, 1)),
        ([0.0], 0.0, BestTest("accuracy", 0.0, 0)),
    ],
)
def test_the_best_of_some_tests(
    values: list[float], weight: float, best: BestTest, tmp_path: Path
) -> None:
    hook, solver = KeepBest("accuracy", False, None), run_of(tmp_path / "a")
    hook.on_solve(solver)
    observe(hook, solver, values, weight=weight)
    assert hook.best == best
    assert not hook.wants_stop
    assert read_best(tmp_path / "a_best.json") == best


def test_a_run_stops_after_tests_without_improvement_and_resumes(tmp_path: Path) -> None:
    solver = run_of(tmp_path / "a")
    hook = KeepBest("accuracy", False, 2)
    hook.on_solve(solver)
    observe(hook, solver, [0.3, 0.2])
    assert not hook.wants_stop
    resumed = KeepBest("accuracy", False, 2)
    resumed.on_solve(run_of(tmp_path / "a", 10))
    # The test of the snapshot's iteration, repeated, counts once more; the best one does not.
    observe(resumed, solver, [0.3], first=2)
    assert resumed.wants_stop
    fresh = KeepBest("accuracy", False, 2)
    fresh.on_solve(run_of(tmp_path / "a", 0))
    assert fresh.best is None


def test_a_test_of_another_net_is_ignored(tmp_path: Path) -> None:
    hook, solver = KeepBest("accuracy", False, 1), run_of(tmp_path / "a")
    hook.on_solve(solver)
    hook.on_test(solver, events.TestResult(0, 1, (Score("other", 1.0),)))
    hook.on_test(solver, events.TestResult(0, 0, (Score("accuracy", 1.0),), not_finite=("prob",)))
    assert hook.best is None


def test_what_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'top9': no output of a test net; expected one of acc"):
        KeepBest("top9", True, None).on_solve(run_of(tmp_path / "a"))
    solver = run_of(tmp_path / "a")
    solver.param.snapshot_prefix = ""
    with pytest.raises(UsageError, match="no snapshot_prefix"):
        KeepBest("accuracy", True, None).on_solve(solver)
    (tmp_path / "b_best.caffemodel").write_text("precious")
    with pytest.raises(SnapshotError, match="this program did not write it"):
        KeepBest("accuracy", True, None).on_solve(run_of(tmp_path / "b"))
    KeepBest("accuracy", True, None, force=True).on_solve(run_of(tmp_path / "b"))
    for text in ("", "{}", "[1]", '{"metric": 1, "value": 0, "iteration": 0, "tests_since": 0}'):
        (tmp_path / "c_best.json").write_text(text)
        with pytest.raises(SnapshotError, match=r"c_best\.json"):
            KeepBest("accuracy", True, None).on_solve(run_of(tmp_path / "c"))


class _Weights(SolverHook):
    """Records the weights after every update."""

    def __init__(self) -> None:
        self.weights: list[list[np.ndarray]] = []

    def on_iteration_end(self, solver: Any) -> None:
        self.weights.append([blob.data.host().copy() for blob in solver.net.params.learnable])


def solved(
    prefix: Path, *hooks: SolverHook, iterations: int = 6, resume: Path | None = None
) -> Solver:
    settings = f"max_iter: {iterations} snapshot: 3 snapshot_prefix: '{prefix}'"
    solver = make_solver(settings, CLASSIFIER, hooks=hooks)
    if resume is not None:
        solver.restore(resume)
    solver.solve()
    return solver


def averaged(net: Net, path: Path) -> list[np.ndarray]:
    copy_trained_layers(net, path)
    return [blob.data.host().copy() for blob in net.params.learnable]


def test_the_average_is_that_of_the_definition(tmp_path: Path) -> None:
    record, start = _Weights(), _Start()
    solver = solved(tmp_path / "a", start, record, WeightAverage(0.2))
    want = start.weights
    for update, weights in enumerate(record.weights):
        decay = min(0.2, (1 + update) / (10 + update))
        want = [decay * average + (1 - decay) * new for average, new in zip(want, weights)]
    got = averaged(solver.net, tmp_path / "a_iter_6.average.caffemodel")
    for average, values in zip(got, want):
        np.testing.assert_allclose(average, values, rtol=1e-5, atol=1e-7)
    assert any(not np.allclose(a, b) for a, b in zip(got, record.weights[-1]))


class _Start(SolverHook):
    def on_solve(self, solver: Any) -> None:
        self.weights = [blob.data.host().copy() for blob in solver.net.params.learnable]


def test_a_resumed_average_is_the_same(tmp_path: Path) -> None:
    solver = solved(tmp_path / "a", WeightAverage(0.9))
    want = averaged(solver.net, tmp_path / "a_iter_6.average.caffemodel")
    solved(tmp_path / "b", WeightAverage(0.9), iterations=3)
    resume = tmp_path / "b_iter_3.solverstate"
    solver = solved(tmp_path / "b", WeightAverage(0.9), resume=resume)
    got = averaged(solver.net, tmp_path / "b_iter_6.average.caffemodel")
    for one, other in zip(got, want):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_averages_of_removed_snapshots_are_removed(tmp_path: Path) -> None:
    solved(tmp_path / "a", WeightAverage(0.9), iterations=3)
    for suffix in ("caffemodel", "solverstate", "state.json"):
        (tmp_path / f"a_iter_3.{suffix}").unlink()
    (tmp_path / "a_iter_x.average.caffemodel").write_text("other")
    solved(tmp_path / "a", WeightAverage(0.9))
    names = sorted(path.name for path in tmp_path.glob("*.average.caffemodel"))
    assert names == [
        "a_iter_3.average.caffemodel",
        "a_iter_6.average.caffemodel",
        "a_iter_x.average.caffemodel",
    ]
    (tmp_path / "a_iter_3.state.json").unlink()
    solved(
        tmp_path / "a", WeightAverage(0.9), iterations=9, resume=tmp_path / "a_iter_6.solverstate"
    )
    assert not (tmp_path / "a_iter_3.average.caffemodel").exists()


def test_an_average_of_another_net(tmp_path: Path) -> None:
    solver = solved(tmp_path / "a", WeightAverage(0.9), iterations=3)
    other = CLASSIFIER.replace('"ip2"', '"ip3"')
    with pytest.raises(SnapshotError, match="layer 'ip3' has no average of shape"):
        hook = WeightAverage(0.9)
        hook.on_solve(make_solver_like(solver, other))


def make_solver_like(solver: Solver, layers: str) -> Any:
    other = make_solver("max_iter: 9", layers)
    return SimpleNamespace(net=other.net, iter=3, param=solver.param)


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, float("nan")])
def test_a_decay_out_of_range(decay: float) -> None:
    with pytest.raises(UsageError, match="expected a number between 0 and 1"):
        WeightAverage(decay)


def test_the_record_is_json(tmp_path: Path) -> None:
    hook, solver = KeepBest("accuracy", False, None), run_of(tmp_path / "a")
    hook.on_solve(solver)
    observe(hook, solver, [0.25])
    assert json.loads((tmp_path / "a_best.json").read_text()) == {
        "metric": "accuracy",
        "value": 0.25,
        "iteration": 0,
        "tests_since": 0,
    }
