"""SIGINT, SIGHUP and SIGTERM, sent to this process."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest

from prototxt_gen.errors import UsageError
from runtime.solvers.hooks import SolverHook
from runtime.solvers.signals import Action, SignalHandler, action_of
from runtime.solvers.solver import Solver
from tests.runtime.solvers.toy import CLASSIFIER, make_solver, prefix, same, weights

FIELDS = "max_iter: 6 test_iter: 3 test_interval: 4"


class _Send(SolverHook):
    """Sends a signal at the start of an iteration."""

    def __init__(self, number: int, at: int) -> None:
        self.number = number
        self.at = at

    def on_start(self, solver: Solver) -> None:
        if solver.iter == self.at:
            os.kill(os.getpid(), self.number)


def _solve(folder: Path, number: int, at: int, **effects: Action) -> Solver:
    solver = make_solver(f"{FIELDS} {prefix(folder)}", CLASSIFIER, hooks=(_Send(number, at),))
    with SignalHandler(**effects) as signals:
        solver.requested_action = signals.poll
        solver.solve()
    return solver


def _snapshots(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.caffemodel"))


def test_sigint_snapshots_and_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    solver = _solve(tmp_path, signal.SIGINT, 2)
    assert solver.iter == 3
    assert _snapshots(tmp_path) == ["toy_iter_3.caffemodel"]
    assert caplog.messages[-1] == "Optimization stopped early."


def test_sighup_snapshots_and_continues(tmp_path: Path) -> None:
    solver = _solve(tmp_path, signal.SIGHUP, 2)
    assert solver.iter == 6
    assert _snapshots(tmp_path) == ["toy_iter_3.caffemodel", "toy_iter_6.caffemodel"]


def test_effects_are_a_choice(tmp_path: Path) -> None:
    solver = _solve(tmp_path / "a", signal.SIGINT, 1, sigint=Action.SNAPSHOT)
    assert solver.iter == 6 and len(_snapshots(tmp_path / "a")) == 2
    solver = _solve(tmp_path / "b", signal.SIGHUP, 1, sighup=Action.STOP)
    assert solver.iter == 2
    solver = _solve(tmp_path / "c", signal.SIGINT, 1, sigint=Action.NONE)
    assert solver.iter == 6 and len(_snapshots(tmp_path / "c")) == 1


@pytest.mark.parametrize("action", [Action.STOP, Action.SNAPSHOT])
def test_a_test_is_broken_off_and_run_again_on_resume(
    action: Action, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    straight = make_solver(f"{FIELDS} {prefix(tmp_path / 'a')}", CLASSIFIER)
    straight.solve()
    solver = make_solver(f"{FIELDS} {prefix(tmp_path / 'b')}", CLASSIFIER)
    asked = []

    def request() -> Action:
        # In the second batch of the test at iteration 4.
        if solver.iter == 4 and solver.test_nets[0].context.pass_number == 4 and not asked:
            asked.append(action)
            return action
        return Action.NONE

    solver.requested_action = request
    solver.solve()
    assert asked == [action]
    path = tmp_path / "b" / "toy_iter_4.solverstate"
    assert solver.iter == (4 if action is Action.STOP else 6)
    assert ("Test interrupted." in caplog.text) is (action is Action.STOP)
    again = make_solver(f"{FIELDS} {prefix(tmp_path / 'b')}", CLASSIFIER)
    again.solve(path)
    assert again.tests.passes == straight.tests.passes
    assert again.best.to_json() == straight.best.to_json()
    assert same(weights(again), weights(straight))


@pytest.mark.parametrize("sigint", list(Action))
def test_sigterm_snapshots_and_stops_with_any_action_of_sigint(
    sigint: Action, tmp_path: Path
) -> None:
    hook = _Send(signal.SIGTERM, 2)
    solver = make_solver(f"{FIELDS} {prefix(tmp_path)}", CLASSIFIER, hooks=(hook,))
    with SignalHandler(sigint, Action.NONE) as signals:
        solver.requested_action = signals.poll
        solver.solve()
        assert signals.terminated
    assert solver.iter == 3 and _snapshots(tmp_path) == ["toy_iter_3.caffemodel"]


def test_sigterm_again_ends_nothing_at_once() -> None:
    with SignalHandler() as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert [signals.poll() for _ in range(4)] == [*[Action.STOP] * 3, Action.NONE]
        assert signals.terminated
    with SignalHandler() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert not signals.terminated


def test_handlers_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with SignalHandler() as signals:
        assert signal.getsignal(signal.SIGINT) not in before
        assert signals.poll() is Action.NONE
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        assert [signals.poll() for _ in range(3)] == [Action.SNAPSHOT, Action.STOP, Action.NONE]
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_second_ctrl_c_ends_at_once() -> None:
    with SignalHandler(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_effects_by_name() -> None:
    assert action_of("stop", "--x") is Action.STOP
    with pytest.raises(UsageError, match='--x: Invalid signal effect "quit" was specified'):
        action_of("quit", "--x")
