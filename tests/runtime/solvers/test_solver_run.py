"""A run: hooks, tests, and the order of events."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from prototxt_gen import proto
from prototxt_gen.errors import SnapshotError
from runtime.solvers.best import BestScore
from runtime.solvers.hooks import Progress, Score, SolverHook
from runtime.solvers.hooks import TestResult as Result
from runtime.solvers.local_engine import LocalEngine
from runtime.solvers.solver import Solver
from tests.runtime.solvers.toy import CLASSIFIER, make_solver, prefix, same, weights


class _Diary(SolverHook):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_solve(self, solver: Solver) -> None:
        self.lines.append("solve")

    def on_start(self, solver: Solver) -> None:
        self.lines.append(f"start {solver.iter}")

    def on_iteration(self, solver: Solver, progress: Progress) -> None:
        self.lines.append(f"loss {progress.iteration}")

    def on_gradients_ready(self, solver: Solver) -> None:
        self.lines.append(f"gradients {solver.iter}")

    def on_rate(self, solver: Solver, iteration: int, rate: float) -> None:
        self.lines.append(f"rate {rate:.2g}")

    def on_iteration_end(self, solver: Solver) -> None:
        self.lines.append(f"end {solver.iter}")

    def on_test_start(self, solver: Solver, net_id: int) -> None:
        self.lines.append(f"testing {net_id}")

    def on_test(self, solver: Solver, result: Result) -> None:
        self.lines.append(f"test {result.iteration}")

    def on_snapshot(self, solver: Solver, files: tuple[Path, ...]) -> None:
        self.lines.append(f"snapshot {len(files)}")

    def on_end(self, solver: Solver, reason: str) -> None:
        self.lines.append(reason)


def test_the_order_of_things(tmp_path: Path) -> None:
    diary = _Diary()
    solver = make_solver(
        f"max_iter: 2 test_iter: 1 test_interval: 2 {prefix(tmp_path)}", CLASSIFIER, hooks=(diary,)
    )
    solver.solve()
    one = ["loss {0}", "gradients {0}", "rate 0.1", "end {1}"]
    wanted = ["solve", "testing 0", "test 0"]
    for i in range(2):
        wanted += [f"start {i}", *(line.format(i, i + 1) for line in one)]
    assert diary.lines == [*wanted, "snapshot 3", "testing 0", "test 2", "done"]


def test_a_run_that_fails_logs_it() -> None:
    class Fail(SolverHook):
        def on_gradients_ready(self, solver: Solver) -> None:
            raise RuntimeError("replica 1 is gone")

    diary = _Diary()
    solver = make_solver("max_iter: 2", hooks=(diary, Fail()))
    with pytest.raises(RuntimeError):
        solver.solve()
    assert diary.lines[-1] == "failed"


def test_test_initialization_may_be_left_out() -> None:
    for asked, passes in (("true", 2), ("false", 1)):
        solver = make_solver(
            f"max_iter: 3 test_iter: 1 test_interval: 2 test_initialization: {asked}", CLASSIFIER
        )
        solver.solve()
        assert solver.test_nets[0].context.pass_number == passes


def test_scores_of_a_test_are_means_over_its_batches() -> None:
    seen: list[Result] = []

    class Look(SolverHook):
        def on_test(self, solver: Solver, result: Result) -> None:
            seen.append(result)

    fields = "test_compute_loss: true test_interval: 1"
    for batch, batches in ((8, 3), (24, 1)):
        solver = make_solver(
            f"{fields} test_iter: {batches}", CLASSIFIER, batch, dtype="float64", hooks=(Look(),)
        )
        solver.test_all()
    many, one = seen
    assert [score.name for score in many.scores] == ["accuracy", "loss"]
    for a, b in zip(many.scores, one.scores):
        assert a.value == pytest.approx(b.value, rel=1e-12) and a.loss_weight == b.loss_weight
    assert many.loss == pytest.approx(many.scores[1].value)


def test_steps_add_up() -> None:
    whole, parts = make_solver("momentum: 0.9"), make_solver("momentum: 0.9")
    whole.step(6)
    for count in (1, 2, 3):
        parts.step(count)
    assert whole.iter == parts.iter == 6
    assert same(weights(whole), weights(parts))


def test_the_seed_makes_the_run() -> None:
    runs = [make_solver(f"random_seed: {seed}", CLASSIFIER) for seed in (7, 7, 8)]
    for solver in runs:
        solver.step(3)
    assert same(weights(runs[0]), weights(runs[1]))
    assert not same(weights(runs[0]), weights(runs[2]))


def test_the_solvers_message_is_its_own() -> None:
    solver = make_solver("max_iter: 3")
    solver.param.max_iter = 9
    assert make_solver("max_iter: 3").param.max_iter == 3
    assert solver.net.phase == proto.TRAIN


def test_a_solver_uses_the_engine_it_is_given() -> None:
    class Halves(LocalEngine):
        """An engine that counts two shards."""

        shards = 2

    solver = make_solver("momentum: 0.9 iter_size: 2", batch=4, build_engine=Halves)
    other = make_solver("momentum: 0.9 iter_size: 2", batch=4)
    solver.step(2)
    other.step(2)
    assert same(weights(solver), weights(other))


@pytest.mark.parametrize(
    ("scores", "name", "best"),
    [
        ([Score("acc", 0.1), Score("loss", 2.0, 1.0)], "acc", 0.3),
        ([Score("loss", 2.0, 1.0)], "loss", 0.5),
    ],
)
def test_the_best_score(scores: list[Score], name: str, best: float) -> None:
    record = BestScore(None)
    assert record.to_json() is None
    values = [0.1, 0.3, 0.2] if name == "acc" else [2.0, 0.5, 0.7]
    for iteration, value in enumerate(values):
        first = Score(name, value, scores[0].loss_weight)
        record.observe(iteration, Result(iteration, 0, (first, *scores[1:])))
        record.observe(iteration, Result(iteration, 1, (Score(name, 9e9 * -(1.0**iteration)),)))
    record.observe(9, Result(9, 0, (Score(name, 1e9 if name == "acc" else 0.0),), None, ("ip2",)))
    assert record.to_json() == {"name": name, "value": best, "iteration": 1}


@pytest.mark.parametrize("key", ["name", "value", "iteration"])
@pytest.mark.parametrize("value", [None, [], {}, 10**400, "1e999", True])
def test_a_best_score_of_other_types_is_damaged(key: str, value: object) -> None:
    values = {"name": "acc", "value": 0.5, "iteration": 3}
    if (key == "name" and isinstance(value, str)) or (key == "iteration" and value == 10**400):
        return
    with pytest.raises(SnapshotError, match="best: damaged; expected name, value and iteration"):
        BestScore(None).from_json({**values, key: value})


def test_a_run_that_is_over_only_tests(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    solver = make_solver("max_iter: 2 test_iter: 1 test_interval: 2", CLASSIFIER)
    solver.solve()
    before = weights(solver)
    caplog.clear()
    solver.solve()
    assert same(before, weights(solver))
    assert "Iteration 2, Testing net (#0)" in caplog.text
